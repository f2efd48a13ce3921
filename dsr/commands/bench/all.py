"""`dsr bench all`: all measurements of each file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dsr.commands.bench.shared import NoLogOpt, check_files, command, end, running, save_rows, show, today
from dsr.options import JsonlOpt, JsonOpt, MarkdownOpt, QuietOpt, ThreadsOpt


def all(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Models to measure: short names, org/repo[:quant], or paths to GGUF files."
        ),
    ],
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipes",
            metavar="LIST|all",
            show_default=False,
            help="Also quantize with these recipes and measure the files. MODEL=LIST: for one model only.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="MODEL",
            show_default=False,
            help="Reference model for the loss. Default: the model itself.",
        ),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME|FILE",
            show_default=False,
            help="Questions: a suite, MODEL=NAME for one model, or none. Default: nano for nano, none for others.",
        ),
    ] = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategies",
            metavar="LIST",
            show_default=False,
            help="Strategies as in dsr bench reason, MODEL=LIST for one model, or none.",
        ),
    ] = None,
    temp: Annotated[
        float | None,
        typer.Option("--temp", metavar="T", help="Temperature for the strategies. Default: recommended for the model."),
    ] = None,
    experts: Annotated[
        str | None,
        typer.Option(
            "--experts",
            metavar="LIST",
            show_default=False,
            help="Experts to keep, as --keep of dsr bench experts, or none.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Maximum questions for each file. Default: all.")
    ] = None,
    strategy_limit: Annotated[
        int | None,
        typer.Option(
            "--strategy-limit",
            min=1,
            metavar="N",
            show_default=False,
            help="Maximum questions for strategies and pruning. Default: the value of --limit.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            "-n",
            min=1,
            metavar="N",
            help="Maximum tokens of an answer, thinking included. Damaged models may never stop by themselves.",
        ),
    ] = None,
    chunks: Annotated[
        int, typer.Option("--chunks", min=1, metavar="N", help="Chunks of 512 tokens to read for the loss.")
    ] = 16,
    again: Annotated[
        bool, typer.Option("--again", help="Repeat speed measurements that other work disturbed.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Folder for the quantized files. Default: delete them after measuring.",
        ),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Accept models that are already quantized; the loss adds up.")
    ] = False,
    threads: ThreadsOpt = None,
    markdown: MarkdownOpt = None,
    note: Annotated[
        str,
        typer.Option(
            "--note", metavar="TEXT", show_default=False, help="Text for the page that says what these models are."
        ),
    ] = "",
    no_log: NoLogOpt = False,
    json: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Measure everything about each file: size, loss, accuracy, speed, memory, strategies, pruning.

    Measurements are saved as they are made. An interrupted run resumes when you repeat the command.

    dsr bench all nano --limit 20 --strategies none --experts none

    dsr bench all f16.gguf --recipes q8_0,q4_k_m,q2_k --markdown f16.md

    dsr bench all nano qwen.gguf --suite qwen=basics --recipes all
    """

    from dsr.bench.all import bench, tables
    from dsr.bench.all.request import AllRequest, listed
    from dsr.bench.experts.bench import KEEPS
    from dsr.bench.kit import files
    from dsr.models.library import find
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet, jsonl=jsonl)
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
        keep=out,
        allow_requantize=allow_requantize,
        command=command(),
    )
    found = [find(model) for model in models]
    check_files(markdown)

    with running(console, threads) as run:
        keep_row = partial(save_rows, console, no_log=no_log)
        made = bench.measure(found, request, run, keep=keep_row)
    # Files come first: the reader of stdout may have closed the pipe (head).
    if markdown is not None:
        files.write(markdown, tables.as_markdown(made, request.command, today(), note))
    for result in made.results:
        console.say(tables.title(result))
        show(console, tables.losses(result))
        costs = tables.costs(result)
        if len(costs.columns) > 1:
            console.say("")
            show(console, costs)
        for table in tables.details(result):
            console.say(f"\n{table.title}")
            show(console, table)
    console.say(tables.LEGEND)
    if tables.disturbances(made):
        console.say(tables.disturbances(made))
    for warning in tables.warnings(made):
        console.warn(warning)
    console.json("dsr.bench.all/1", made.json())
    end(interrupted=made.interrupted, failed=[error.exit_code for _, error in made.failed])
