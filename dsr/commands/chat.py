"""`dsr chat`: one answer, or a conversation at the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dsr.options import JsonOpt, MinPOpt, QuietOpt, TempOpt, ThinkBudgetOpt, ThinkOpt, ThreadsOpt, TopKOpt, TopPOpt


def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A short name (deepseek-r1:7b), org/repo[:quant] or a path; with spaces, a question.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", show_default=False, help="The question. Text on stdin is joined to it."),
    ] = None,
    prompt_option: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="The question, for the default model too.")
    ] = None,
    model_option: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="The model, like the first argument.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", metavar="FILE", help="Ask about a text file; repeat it for more."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system prompt.")] = None,
    template: Annotated[
        Path | None,
        typer.Option("--template", metavar="FILE", help="A Jinja chat template instead of the model's own."),
    ] = None,
    think: ThinkOpt = None,
    think_budget: ThinkBudgetOpt = None,
    thinking: Annotated[
        str | None, typer.Option("--thinking", metavar="show|hide|summary", help="What to show of the thought.")
    ] = None,
    temp: TempOpt = None,
    top_p: TopPOpt = None,
    min_p: MinPOpt = None,
    top_k: TopKOpt = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="S", help="Repeat an answer; random without."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", "-n", metavar="N", help="Thought and answer together."),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="End the answer before TEXT."),
    ] = None,
    ctx_size: Annotated[
        int | None,
        typer.Option(
            "--ctx-size",
            "-c",
            min=1,
            metavar="N",
            help="Context in tokens; else what model and memory allow.",
        ),
    ] = None,
    threads: ThreadsOpt = None,
    kv_type: Annotated[
        str | None,
        typer.Option("--kv-type", metavar="TYPE", help="KV cache: f16, q8_0, q4_0, ..."),
    ] = None,
    reproducible: Annotated[
        bool,
        typer.Option("--reproducible", help="Same seed, same text: never reuse a cached prompt."),
    ] = False,
    draft: Annotated[
        str | None,
        typer.Option("--draft", metavar="MODEL|ngram|mtp", help="Guess ahead: by a small model, the text, MTP layers."),
    ] = None,
    vote: Annotated[
        int | None,
        typer.Option("--vote", min=1, metavar="N", help="Draw N samples, answer with what most agree on."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", metavar="NAME", help="Another way to think longer; see --list-strategies."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the strategy, as in n=16; repeat it for more."),
    ] = None,
    list_strategies: Annotated[
        bool, typer.Option("--list-strategies", help="Show the strategies and their settings.")
    ] = False,
    nodes: Annotated[
        str | None,
        typer.Option(
            "--nodes", metavar="LIST|FILE", help="Share the work with host[:port][=layers],... or a nodes.toml."
        ),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="When a node is lost, go on without it at once.")] = False,
    experts: Annotated[
        str | None,
        typer.Option(
            "--experts", metavar="auto|TASK|off", help="Only the experts that the question needs, or TASK does."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="auto|50%|8", help="How many of each layer; else as few as do no harm."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the last conversation.")] = False,
    no_log: Annotated[bool, typer.Option("--no-log", help="Do not keep this conversation.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Show tokens and speed after the answer.")] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Ask a model, or talk to it.

    dsr chat "What is 347 + 586?"

    dsr chat deepseek-r1:7b "Why is the sky blue?"

    dsr chat --vote 8 --temp 1 "What is 347 + 586?"

    git diff | dsr chat deepseek-r1:7b "Review this"

    dsr chat deepseek-r1:7b
    """
    from dsr.chat import session
    from dsr.chat.strategy import strategy_of
    from dsr.experts.request import experts_wanted
    from dsr.models.sampling import SamplingRequest
    from dsr.ui import streams
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    if list_strategies:
        session.list_strategies(console)
        return
    asked = session.who_and_what(model, prompt, model_option, prompt_option)
    request = session.ChatRequest(
        model=asked.model,
        prompt=session.joined(streams.read_in(), asked.prompt),
        files=tuple(file or ()),
        system=system,
        template=template,
        think=think,
        thinking=thinking,
        sampling=SamplingRequest(temp, top_p, min_p, top_k, seed, max_tokens, think_budget, tuple(stop or ())),
        ctx_size=ctx_size,
        threads=threads,
        kv_type=kv_type,
        reproducible=reproducible,
        draft=draft,
        nodes=nodes,
        retry=retry,
        resume=resume,
        keep=not no_log,
        stats=stats,
        strategy=strategy_of(vote, strategy, setting or ()),
        experts=experts_wanted(experts, keep),
    )
    raise typer.Exit(session.run(request, console, interactive=sys.stdin.isatty()))
