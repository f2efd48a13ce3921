"""`dsr bench reason`: how often a model is right, by strategy."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dsr.commands.bench.shared import INTERRUPTED, NoLogOpt, keep_rows, show
from dsr.options import (
    CsvOpt,
    JsonOpt,
    MarkdownOpt,
    MinPOpt,
    ModelArg,
    QuietOpt,
    SlotsOpt,
    SuiteOpt,
    TempOpt,
    ThinkBudgetOpt,
    ThinkOpt,
    ThreadsOpt,
    TopKOpt,
    TopPOpt,
)


def reason(
    model: ModelArg,
    suite: SuiteOpt = "nano",
    strategies: Annotated[
        str | None,
        typer.Option(
            "--strategies",
            metavar="LIST",
            show_default=False,
            help="Strategies to measure: NAME[:KEY=VALUE...],... or all. Default: those that can share samples.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", help="Samples for each problem.")] = 8,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Use only the first N problems.")
    ] = None,
    temp: TempOpt = None,
    top_p: TopPOpt = None,
    min_p: MinPOpt = None,
    top_k: TopKOpt = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", help="Random seed; sample s of problem p uses S + 1000 p + s.")
    ] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", "-n", min=1, metavar="N", help="Maximum tokens, thinking and answer together."),
    ] = None,
    think_budget: ThinkBudgetOpt = None,
    think: ThinkOpt = None,
    slots: SlotsOpt = 8,
    ctx_size: Annotated[
        int | None,
        typer.Option("--ctx-size", "-c", min=1, metavar="N", help="Context size in tokens, shared by all slots."),
    ] = None,
    threads: ThreadsOpt = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the samples. Default: the cache of dsr."),
    ] = None,
    csv: CsvOpt = None,
    markdown: MarkdownOpt = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw accuracy against tokens as an SVG file.")
    ] = None,
    no_log: NoLogOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Measure how often a model is right with each strategy, and how many tokens that takes.

    Samples are saved: an interrupted run resumes, and other strategies use the same samples.

    dsr bench reason nano --limit 20

    dsr bench reason deepseek-r1:7b --suite math-500 --limit 100 --plot r1.svg

    dsr bench reason nano --strategies direct,vote:n=4:stop=esc,budget
    """
    from dsr.bench.kit import outputs
    from dsr.bench.reason import bench as service
    from dsr.bench.reason import tables
    from dsr.bench.reason.chart import chart
    from dsr.chat.summary import prediction_line
    from dsr.models.library import find
    from dsr.models.sampling import SamplingRequest
    from dsr.ui.charts.chart import best_first
    from dsr.ui.charts.chart_svg import plot_file
    from dsr.ui.charts.svg import check_path
    from dsr.ui.charts.terminal import scatter
    from dsr.ui.console import Console, columns, is_terminal
    from dsr.ui.interrupts import ANY_END, stopping
    from dsr.ui.progress import showing
    from runtime.base.run import Stop

    console = Console(json_mode=json, quiet=quiet)
    if plot is not None:
        check_path(plot)
    outputs.check(csv, markdown, plot)
    local = find(model)
    request = service.ReasonRequest(
        suite=suite,
        strategies=tuple(strategies.split(",")) if strategies is not None else (),
        samples=samples,
        limit=limit,
        sampling=SamplingRequest(temp, top_p, min_p, top_k, seed, max_tokens, think_budget),
        think=think,
        slots=slots,
        ctx_size=ctx_size,
        threads=threads,
        out=out,
    )
    stop = Stop()
    with stopping(stop, ANY_END), showing(console) as listen:
        made = service.run(local, request, stop=stop, listen=listen)
    keep_rows(console, tables.rows(made), no_log=no_log)
    # Files come first: whoever reads stdout may have left (head).
    if csv is not None:
        outputs.write(csv, tables.as_csv(made))
    if markdown is not None:
        outputs.write(markdown, tables.as_markdown(made, shlex.join(["dsr", *sys.argv[1:]])))
    if plot is not None:
        outputs.write(plot, plot_file(best_first(chart(made), up=1)))
    console.say(f"{tables.title(made)}; {tables.conditions(made)}")
    if quiet and not json:
        for score in made.scores:
            console.data(f"{score.line.label}\t{score.accuracy:.4f}")
    show(console, tables.table(made))
    if console.human and is_terminal(sys.stdout):
        for line in scatter(chart(made), min(columns(sys.stdout), 100)):
            console.data(line)
    console.say(tables.LEGEND)
    for warning in tables.warnings(made):
        console.warn(warning)
    if made.run is not None:
        console.say(f"drawing took {prediction_line(made.run)}")
    console.say(f"samples and decisions: {made.folder}")
    console.json("dsr.bench-reason/1", made.json())
    if made.interrupted:
        console.say("stopped; the same command goes on")
        raise typer.Exit(INTERRUPTED)
