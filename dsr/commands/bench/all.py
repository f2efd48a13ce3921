"""`dsr bench all`: the whole row of each file."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dsr.commands.bench.shared import INTERRUPTED, NoLogOpt, keep_rows, show
from dsr.options import JsonOpt, MarkdownOpt, QuietOpt, ThreadsOpt


def whole(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models to measure, as dsr chat names them.")],
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipes",
            metavar="LIST|all",
            show_default=False,
            help="Also the files that these make; MODEL=LIST, MODEL=all for one model alone.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="MODEL", show_default=False, help="The reference; else the model itself."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME|FILE",
            show_default=False,
            help="Questions, or MODEL=NAME; none for none. Without, the embedded model gets its own, others none.",
        ),
    ] = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategies",
            metavar="LIST",
            show_default=False,
            help="As in dsr bench reason, or MODEL=LIST; none for none.",
        ),
    ] = None,
    temp: Annotated[
        float | None, typer.Option("--temp", metavar="T", help="Of the strategies; as recommended without.")
    ] = None,
    experts: Annotated[
        str | None,
        typer.Option(
            "--experts", metavar="LIST", show_default=False, help="As --keep of dsr bench experts; none for none."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Questions asked of each file; else all.")
    ] = None,
    strategy_limit: Annotated[
        int | None,
        typer.Option(
            "--strategy-limit",
            min=1,
            metavar="N",
            show_default=False,
            help="With strategies and pruning; else --limit.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", "-n", min=1, metavar="N", help="Of an answer: damaged models may never end one."),
    ] = None,
    chunks: Annotated[int, typer.Option("--chunks", min=1, metavar="N", help="Of 512 tokens, for the loss.")] = 16,
    again: Annotated[bool, typer.Option("--again", help="Measure speeds anew that other work disturbed.")] = False,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="FOLDER", help="Keep made files here; else they go when measured."),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Make files of weights that are quantized already.")
    ] = False,
    threads: ThreadsOpt = None,
    markdown: MarkdownOpt = None,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", show_default=False, help="For the page: what these models are.")
    ] = "",
    no_log: NoLogOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """The whole row of each file: size, loss, accuracy, speed, memory; then strategies and pruning.

    What is measured is kept: the same command goes on where it was stopped.

    dsr bench all nano --limit 20 --strategies none --experts none

    dsr bench all f16.gguf --recipes q8_0,q4_k_m,q2_k --markdown f16.md

    dsr bench all nano qwen.gguf --suite qwen=basics --recipes all
    """
    import datetime

    from dsr.bench.all import bench, tables
    from dsr.bench.all.document import as_markdown
    from dsr.bench.all.request import AllRequest, listed
    from dsr.bench.experts.bench import KEEPS
    from dsr.bench.kit import outputs
    from dsr.models.library import find
    from dsr.ui.console import Console
    from dsr.ui.interrupts import ANY_END, stopping
    from dsr.ui.progress import showing
    from runtime.base.run import Stop

    console = Console(json_mode=json, quiet=quiet)
    request = AllRequest(
        recipes=tuple(recipes or ()),
        against=None if against is None else find(against),
        suites=tuple(suite or ()),
        strategies=tuple(strategies or ()),
        temperature=temp,
        experts=tuple(listed(experts or "")) or KEEPS,
        limit=limit,
        strategy_limit=strategy_limit,
        max_tokens=max_tokens,
        chunks=chunks,
        again=again,
        keep=keep,
        threads=threads,
        allow_requantize=allow_requantize,
        command=shlex.join(["dsr", *sys.argv[1:]]),
    )
    found = [find(model) for model in models]
    outputs.check(markdown)

    stop = Stop()
    with stopping(stop, ANY_END), showing(console) as listen:
        keep_row = partial(keep_rows, console, no_log=no_log)
        made = bench.run(found, request, keep=keep_row, stop=stop, listen=listen)
    # Files come first: whoever reads stdout may have left (head).
    if markdown is not None:
        today = datetime.date.today().isoformat()
        outputs.write(markdown, as_markdown(made, request.command, today, note))
    for subject in made.subjects:
        console.say(tables.title(subject))
        show(console, tables.losses(subject))
        costs = tables.costs(subject)
        if len(costs.columns) > 1:
            console.say("")
            show(console, costs)
        for table in tables.more(subject):
            console.say(f"\n{table.title}")
            show(console, table)
    console.say(tables.LEGEND)
    if tables.disturbances(made):
        console.say(tables.disturbances(made))
    for warning in tables.warnings(made):
        console.warn(warning)
    console.json("dsr.bench.all/1", made.json())
    if made.interrupted:
        raise typer.Exit(INTERRUPTED)
    if made.failed:
        raise typer.Exit(made.failed[0][1].exit_code)
