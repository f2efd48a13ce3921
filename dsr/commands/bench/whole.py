"""`dsr bench all`: the whole row of each file."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dsr.commands.bench.kept import INTERRUPTED, NoLogOpt, keep_rows
from dsr.options import JsonOpt, QuietOpt


def whole(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models to measure, as dsr chat names them.")],
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipes",
            metavar="LIST|all",
            show_default=False,
            help="Also the files that these make; NAME=LIST for one model alone.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="MODEL", show_default=False, help="The reference; else the model itself."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME|FILE",
            show_default=False,
            help="Questions; none for none. Without, the embedded model gets its own, others none.",
        ),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            "--strategies",
            metavar="LIST",
            show_default=False,
            help="As in dsr bench reason; none for none.",
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
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="FOLDER", help="Keep made files here; else they go when measured."),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Make files of weights that are quantized already.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", "-t", min=1, metavar="N", help="CPU threads; else measured.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a page with all tables.")
    ] = None,
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

    dsr bench all f16.gguf --recipes all --limit 100 --max-tokens 300
    """
    import datetime

    from dsr.console import Console
    from dsr.interrupts import stopping
    from dsr.library import find
    from dsr.progress import showing
    from dsr.services.bench import whole as service
    from dsr.services.bench import whole_report as report
    from dsr.services.experts.bench import KEEPS
    from dsr.services.reason.bench import write
    from runtime.backend import Stop

    console = Console(json_mode=json, quiet=quiet)
    request = service.WholeRequest(
        recipes=tuple(recipes or ()),
        against=None if against is None else find(against),
        suite=suite,
        strategies=_listed(strategies),
        temperature=temp,
        experts=_listed(experts) or KEEPS,
        limit=limit,
        strategy_limit=strategy_limit,
        max_tokens=max_tokens,
        chunks=chunks,
        keep=keep,
        threads=threads,
        allow_requantize=allow_requantize,
    )
    found = [find(model) for model in models]

    stop = Stop()
    with stopping(stop), showing(console) as listen:
        keep_row = partial(keep_rows, console, no_log=no_log)
        made = service.run(found, request, keep=keep_row, stop=stop, listen=listen)
    for subject in made.subjects:
        console.say(report.title(subject))
        console.table(report.HEADER, report.table(subject), right=report.RIGHT)
        console.say("")
        console.table(report.COST, report.costs(subject), right=report.RIGHT)
        for name, header, rows, right in report.more(subject):
            console.say(f"\n{name}")
            console.table(header, rows, right=right)
    console.say(report.LEGEND)
    if report.disturbances(made):
        console.say(report.disturbances(made))
    for warning in report.warnings(made):
        console.warn(warning)
    if markdown is not None:
        today = datetime.date.today().isoformat()
        write(markdown, report.as_markdown(made, shlex.join(["dsr", *sys.argv[1:]]), today, note))
    console.json("dsr.bench.all/1", made.json())
    if made.interrupted:
        raise typer.Exit(INTERRUPTED)
    if made.failed:
        raise typer.Exit(made.failed[0][1].exit_code)


def _listed(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
