"""`dsr chat`: one answer, or a conversation at the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dsr.commands.sampling_options import (
    DryAllowedLengthOpt,
    DryBaseOpt,
    DryMultiplierOpt,
    DryPenaltyLastNOpt,
    DrySequenceBreakerOpt,
    DynatempExponentOpt,
    DynatempRangeOpt,
    FrequencyPenaltyOpt,
    LogitBiasOpt,
    MinPOpt,
    PenaltyLastNOpt,
    PresencePenaltyOpt,
    RepeatPenaltyOpt,
    TempOpt,
    TopKOpt,
    TopNSigmaOpt,
    TopPOpt,
    TypicalPOpt,
    XtcProbabilityOpt,
    XtcThresholdOpt,
    sampling_request,
)
from dsr.options import (
    EffortOpt,
    FromDiskOpt,
    JsonOpt,
    KvFullOpt,
    LoraOpt,
    QuietOpt,
    RopeOpt,
    ThinkBudgetOpt,
    ThinkOpt,
    ThreadsOpt,
)


def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="Short name (deepseek-r1:7b), org/repo[:quant] or path; left out, the prompt comes first.",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...",
            show_default=False,
            help="The question. Text from stdin is put before it. Without both: a conversation.",
        ),
    ] = None,
    prompt_option: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="The question; same as PROMPT, and works without MODEL."),
    ] = None,
    model_option: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="The model; same as the first argument.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", metavar="FILE", help="Add a text file to the prompt. Repeatable."),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="System prompt. Default: none.")
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            "--template",
            metavar="FILE",
            help="Chat template that replaces the model's own: Jinja, or a tokenizer_config.json.",
        ),
    ] = None,
    special: Annotated[
        bool,
        typer.Option(
            "--special", help="Special tokens in the question and in files act as such. Default: they are plain text."
        ),
    ] = False,
    think: ThinkOpt = None,
    effort: EffortOpt = None,
    think_budget: ThinkBudgetOpt = None,
    keep_thoughts: Annotated[
        bool,
        typer.Option(
            "--keep-thoughts", help="Leave earlier thoughts in the prompt, if the model knows it. Default: remove them."
        ),
    ] = False,
    thinking: Annotated[
        str | None,
        typer.Option(
            "--thinking",
            metavar="show|hide|summary",
            help="Show the thinking, hide it, or print one line about it. Default: show.",
        ),
    ] = None,
    temp: TempOpt = None,
    top_p: TopPOpt = None,
    min_p: MinPOpt = None,
    top_k: TopKOpt = None,
    presence_penalty: PresencePenaltyOpt = None,
    frequency_penalty: FrequencyPenaltyOpt = None,
    repeat_penalty: RepeatPenaltyOpt = None,
    penalty_last_n: PenaltyLastNOpt = None,
    dry_multiplier: DryMultiplierOpt = None,
    dry_base: DryBaseOpt = None,
    dry_allowed_length: DryAllowedLengthOpt = None,
    dry_penalty_last_n: DryPenaltyLastNOpt = None,
    dry_sequence_breaker: DrySequenceBreakerOpt = None,
    xtc_probability: XtcProbabilityOpt = None,
    xtc_threshold: XtcThresholdOpt = None,
    typical_p: TypicalPOpt = None,
    top_n_sigma: TopNSigmaOpt = None,
    dynatemp_range: DynatempRangeOpt = None,
    dynatemp_exponent: DynatempExponentOpt = None,
    logit_bias: LogitBiasOpt = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="S", help="Random seed. The same seed and settings repeat an answer. Default: random."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            "-n",
            metavar="N",
            help="Maximum tokens, thinking and answer together. Default: the context.",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="Stop before TEXT appears in the answer. Repeatable."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="json|FILE",
            help="Hold the answer to a JSON object, or to the JSON Schema in FILE. The thinking stays free.",
        ),
    ] = None,
    ctx_size: Annotated[
        int | None,
        typer.Option(
            "--ctx-size",
            "-c",
            min=1,
            metavar="N",
            help="Context size in tokens. Default: what model and memory allow.",
        ),
    ] = None,
    rope: RopeOpt = None,
    lora: LoraOpt = None,
    threads: ThreadsOpt = None,
    kv_type: Annotated[
        str | None,
        typer.Option(
            "--kv-type",
            metavar="TYPE",
            help="Type of the KV cache: f16, q8_0, q4_0, ..., or k=q8_0,v=q4_0. Default: f16.",
        ),
    ] = None,
    kv_full: KvFullOpt = False,
    from_disk: FromDiskOpt = "auto",
    reproducible: Annotated[
        bool,
        typer.Option("--reproducible", help="Same seed, same text: reuse no cached prompt, at some cost in speed."),
    ] = False,
    draft: Annotated[
        str | None,
        typer.Option(
            "--draft",
            metavar="MODEL|ngram|mtp",
            help="Speculative decoding with a small model, n-grams, or the model's MTP layers.",
        ),
    ] = None,
    route: Annotated[
        float | None,
        typer.Option(
            "--route",
            metavar="NATS",
            help="Lossy: the --draft model writes, MODEL only where the entropy is above this, such as 0.2.",
        ),
    ] = None,
    vote: Annotated[
        int | None,
        typer.Option("--vote", min=1, metavar="N", help="Generate N answers and take the one most agree on."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", metavar="NAME", help="Test-time strategy, such as vote or deepconf; see --list-strategies."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting of the strategy, such as n=16. Repeatable."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TOKENS|SECONDS",
            help="Maximum tokens of all samples together (4000), or maximum time (30s). Default: no limit.",
        ),
    ] = None,
    list_strategies: Annotated[
        bool, typer.Option("--list-strategies", help="List the strategies and their settings, then exit.")
    ] = False,
    tools: Annotated[
        Path | None,
        typer.Option(
            "--tools",
            metavar="FILE",
            help="Let the model call tools of the MCP servers in FILE, an mcp.json. Asks first.",
        ),
    ] = None,
    allow_tool: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-tool",
            metavar="NAME|all",
            help="Run this tool without a question; without a terminal no other tool runs. Repeatable.",
        ),
    ] = None,
    tool_timeout: Annotated[
        float | None,
        typer.Option("--tool-timeout", metavar="SECONDS", help="Longest call of a tool. Default: 60 seconds."),
    ] = None,
    tool_rounds: Annotated[
        int | None,
        typer.Option(
            "--tool-rounds", min=1, metavar="N", help="Maximum rounds of calls for one question. Default: 10."
        ),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(
            "--nodes", metavar="LIST|FILE", help="Machines that take layers: host[:port][=layers],... or a nodes.toml."
        ),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="If a node is lost, continue the answer without it.")] = False,
    experts: Annotated[
        str | None,
        typer.Option(
            "--experts",
            metavar="auto|TASK|off",
            help="Load only the experts for the question (auto) or for a profiled TASK. Default: off.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="auto|50%|8",
            help="Experts to keep in each layer, with --experts. Default: auto, the fewest without measured harm.",
        ),
    ] = None,
    edit: Annotated[
        str,
        typer.Option(
            "--edit",
            metavar="exact|fast",
            help="When a file that you gave before has changed: read it again (exact), or read the change and move "
            "the rest (fast, approximate). Default: exact.",
            show_default=False,
        ),
    ] = "exact",
    on_full: Annotated[
        str | None,
        typer.Option(
            "--on-full",
            metavar="stop|forget|summary",
            help="When the context is full: stop, forget the oldest exchanges, or sum them up first. "
            "Default: forget in a conversation, stop for one question.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the last saved conversation.")] = False,
    no_log: Annotated[bool, typer.Option("--no-log", help="Do not save this conversation, nor its cache.")] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Show token counts, speed and memory after each answer.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Show answers as the model writes them. Default: a terminal gets rendered Markdown."
        ),
    ] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Ask a model one question, or have a conversation.

    dsr chat "What is 347 + 586?"

    dsr chat deepseek-r1:7b "Why is the sky blue?"

    dsr chat --vote 8 --temp 1 "What is 347 + 586?"

    git diff | dsr chat deepseek-r1:7b "Review this"

    dsr chat deepseek-r1:7b
    """
    from dsr.chat import session
    from dsr.chat.arguments import settled, split_arguments
    from dsr.chat.asked import asked_of
    from dsr.chat.format_file import grammar_of
    from dsr.chat.options import show_strategies, strategy_of, with_piped_text
    from dsr.chat.template_file import read_template
    from dsr.chat.tools.config import tools_request
    from dsr.loading.nodes import parse_nodes
    from dsr.loading.options import LoadOptions, experts_request, lora_request, rope_request
    from dsr.store import paths, settings
    from dsr.ui import streams
    from dsr.ui.console import Console
    from runtime.base.types import ByteCount
    from runtime.engine.prompt_options import PromptOptions

    console = Console(json_mode=json, quiet=quiet)
    if list_strategies:
        show_strategies(console)
        return
    words = [*([] if model is None else [model]), *(prompt or ())]
    interactive = sys.stdin.isatty()
    asked = settled(split_arguments(words, model_option, prompt_option), console, interactive=interactive)
    defaults = settings.load(paths.config_file())
    request = session.ChatRequest(
        model=asked.model,
        default_model=defaults.model,
        prompt=with_piped_text(streams.read_in(), asked.prompt),
        files=tuple(file or ()),
        system=system,
        asked=asked_of(think, effort, keep_thoughts, special),
        usual=PromptOptions(effort=defaults.effort, keep_thoughts=defaults.keep_thoughts),
        thinking=thinking or defaults.thinking,
        sampling=sampling_request(
            temperature=temp,
            top_p=top_p,
            min_p=min_p,
            top_k=top_k,
            seed=seed,
            max_tokens=max_tokens,
            think_budget=think_budget,
            stop=tuple(stop or ()),
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            repeat_penalty=repeat_penalty,
            penalty_last_n=penalty_last_n,
            dry_multiplier=dry_multiplier,
            dry_base=dry_base,
            dry_allowed_length=dry_allowed_length,
            dry_penalty_last_n=dry_penalty_last_n,
            dry_sequence_breakers=dry_sequence_breaker,
            xtc_probability=xtc_probability,
            xtc_threshold=xtc_threshold,
            typical_p=typical_p,
            top_n_sigma=top_n_sigma,
            dynatemp_range=dynatemp_range,
            dynatemp_exponent=dynatemp_exponent,
            logit_bias=logit_bias,
        ).with_usual(defaults.sampling),
        load=LoadOptions(
            context=ctx_size,
            usual_context=defaults.ctx_size,
            rope=rope_request(rope),
            kv_type=kv_type or defaults.kv_type,
            kv_full=kv_full,
            template=read_template(template) if template else None,
            draft=draft,
            route=route,
            lora=tuple(map(lora_request, lora or ())),
            nodes=parse_nodes(nodes) if nodes is not None else (),
            retry=retry,
            from_disk=from_disk,
        ),
        threads=threads or defaults.threads,
        reproducible=reproducible,
        resume=resume,
        keep=defaults.log and not no_log,
        cache_limit=None if defaults.cache_limit is None else ByteCount.parse(defaults.cache_limit),
        stats=stats,
        strategy=strategy_of(vote, strategy, setting or (), budget),
        experts=experts_request(experts, keep),
        on_full=on_full or defaults.on_full,
        edit=edit,
        grammar=grammar_of(format) if format is not None else None,
        tools=tools_request(tools, allow_tool or (), tool_timeout, tool_rounds),
        raw=raw,
    )
    raise typer.Exit(session.run(request, console, interactive=interactive))
