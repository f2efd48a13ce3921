"""`dsr bench experts`: accuracy and KL divergence with fewer experts."""

from __future__ import annotations

from typing import Annotated

import typer

from dsr.commands.bench.shared import (
    NoLogOpt,
    PlotOpt,
    check_files,
    command,
    end,
    running,
    save_rows,
    show,
    show_chart,
    today,
)
from dsr.options import JsonlOpt, JsonOpt, MarkdownOpt, ModelArg, QuietOpt, SlotsOpt, SuiteOpt, ThreadsOpt


def experts(
    model: ModelArg,
    suite: SuiteOpt = "nano",
    keep: Annotated[
        str,
        typer.Option(
            "--keep", metavar="LIST", help="Experts to keep in each layer: auto, shares such as 50%, or numbers."
        ),
    ] = "100%,auto,75%,50%,25%",
    profiles: Annotated[
        str | None,
        typer.Option(
            "--profiles",
            metavar="NAME|FILE",
            show_default=False,
            help="Suite for missing profiles, with other questions than --suite. Default: built in for nano.",
        ),
    ] = None,
    score: Annotated[
        str, typer.Option("--score", metavar="NAME", help="How experts are ranked, or all to compare the rankings.")
    ] = "easy-ep",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Use only the first N problems of each task.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, metavar="S", help="Random seed for the runs with random experts: S, S + 1, S + 2."
        ),
    ] = 0,
    max_tokens: Annotated[
        int,
        typer.Option("--max-tokens", "-n", min=1, metavar="N", help="Maximum tokens of an answer, thinking included."),
    ] = 2048,
    slots: SlotsOpt = 8,
    threads: ThreadsOpt = None,
    markdown: MarkdownOpt = None,
    plot: PlotOpt = None,
    no_log: NoLogOpt = False,
    json: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Measure how many experts a task needs and what it costs to keep fewer.

    dsr answers each task with the experts of its own profile, of all profiles, of another task, and with random
    experts. Answers are greedy and come from pruned files. An interrupted run resumes.

    dsr bench experts nano --limit 10

    dsr bench experts qwen3:30b-a3b --suite mine.jsonl --profiles others.jsonl

    dsr bench experts nano --score all --keep 100%,75%,50%,25%
    """

    from dsr.bench.experts import bench as service
    from dsr.bench.experts import tables as report
    from dsr.bench.experts.chart import chart
    from dsr.bench.kit import files
    from dsr.models.library import find
    from dsr.ui.charts.chart_svg import plot_file
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet, jsonl=jsonl)
    check_files(markdown, plot=plot)
    found = find(model)
    request = service.ExpertsBenchRequest(
        suite=suite,
        keeps=tuple(dict.fromkeys(word.strip().casefold() for word in keep.split(",") if word.strip())),
        profiles=profiles,
        score=score,
        limit=limit,
        seed=seed,
        max_tokens=max_tokens,
        slots=slots,
    )
    with running(console, threads) as run:
        made = service.measure(found, request, run)
    save_rows(console, made.measurements, no_log=no_log)
    # Files come first: the reader of stdout may have closed the pipe (head).
    if markdown is not None:
        files.write(markdown, report.as_markdown(made, command(), today()))
    if plot is not None:
        files.write(plot, plot_file(chart(made)))
    console.say(f"{report.title(made)}; {report.conditions(made)}")
    if console.quiet:
        for group in report.case_groups(made):
            console.data(f"{group.keep}\t{group.label}\t{group.accuracy:.4f}")
    show(console, report.table(made))
    show_chart(console, chart(made))
    console.say(report.LEGEND)
    for table in report.details(made):
        if console.human:
            console.data("")
        show(console, table)
    if len(made.origins) > 1:
        console.say(report.DETAIL_LEGEND)
    for sentence in report.findings(made):
        console.say(sentence)
    for warning in report.warnings(made):
        console.warn(warning)
    console.say(f"answers: {made.folder}")
    console.json("dsr.bench.experts/1", made.json())
    if made.interrupted:
        console.say("stopped; repeat the command to resume")
    end(interrupted=made.interrupted)
