"""`dsr bench reason`: accuracy and tokens by strategy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsr.commands.bench.shared import NoLogOpt, PlotOpt, check_files, command, end, running, save_rows, show, show_chart
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
    CsvOpt,
    EffortOpt,
    FromDiskOpt,
    JsonlOpt,
    JsonOpt,
    LoraOpt,
    MarkdownOpt,
    QuietOpt,
    SlotsOpt,
    SuiteOpt,
    ThinkBudgetOpt,
    ThinkOpt,
    ThreadsOpt,
)

if TYPE_CHECKING:
    from dsr.ui.console import Console


def reason(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", show_default=False, help="Short name (deepseek-r1:7b), org/repo[:quant] or path."
        ),
    ] = None,
    suite: SuiteOpt = "nano",
    strategies: Annotated[
        str | None,
        typer.Option(
            "--strategies",
            metavar="LIST",
            show_default=False,
            help="Strategies to measure: NAME[:KEY=VALUE...],... or all. Default: all that can share samples.",
        ),
    ] = None,
    score: Annotated[
        str,
        typer.Option(
            "--score", metavar="HOW", help="answers: draw them. likelihood: compare the choices of each question."
        ),
    ] = "answers",
    alone: Annotated[
        int,
        typer.Option(
            "--alone", min=0, metavar="N", help="Also run each strategy alone on the first N problems, for its seconds."
        ),
    ] = 0,
    list_suites: Annotated[
        bool, typer.Option("--list-suites", help="List the suites, and how their answers are judged.")
    ] = False,
    samples: Annotated[int, typer.Option("--samples", metavar="N", help="Samples for each problem.")] = 8,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Use only the first N problems.")
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
        int, typer.Option("--seed", metavar="S", help="Random seed; sample s of problem p uses S + 1000 p + s.")
    ] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", "-n", min=1, metavar="N", help="Maximum tokens, thinking and answer together."),
    ] = None,
    think_budget: ThinkBudgetOpt = None,
    think: ThinkOpt = None,
    effort: EffortOpt = None,
    slots: SlotsOpt = 8,
    ctx_size: Annotated[
        int | None,
        typer.Option("--ctx-size", "-c", min=1, metavar="N", help="Context size in tokens, shared by all slots."),
    ] = None,
    lora: LoraOpt = None,
    from_disk: FromDiskOpt = "auto",
    threads: ThreadsOpt = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the samples. Default: the cache of dsr."),
    ] = None,
    csv: CsvOpt = None,
    markdown: MarkdownOpt = None,
    plot: PlotOpt = None,
    no_log: NoLogOpt = False,
    json: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Measure how often a model is right with each strategy, and how many tokens that takes.

    Samples are saved: an interrupted run resumes, and other strategies use the same samples.

    dsr bench reason nano --limit 20

    dsr bench reason deepseek-r1:7b --suite math-500 --limit 100 --plot r1.svg

    dsr bench reason nano --strategies direct,vote:n=4:stop=esc,budget

    dsr bench reason MODEL --suite gym:laptop --limit 120 --strategies all

    dsr bench reason MODEL --suite choices --score likelihood
    """
    from dsr.bench.kit import files
    from dsr.bench.reason import bench as service
    from dsr.bench.reason import tables
    from dsr.bench.reason.chart import chart
    from dsr.chat.asked import asked_of
    from dsr.chat.summary import prediction_line
    from dsr.loading.options import lora_request
    from dsr.models.library import find
    from dsr.ui.charts.chart import best_first
    from dsr.ui.charts.chart_svg import plot_file
    from dsr.ui.console import Console
    from runtime.base.errors import UsageError

    console = Console(json_mode=json, quiet=quiet, jsonl=jsonl)
    if list_suites:
        show_suites(console)
        return
    check_files(csv, markdown, plot=plot)
    if model is None:
        raise UsageError("MODEL is missing", hint="dsr bench reason nano, or dsr list for the models on this machine")
    if score not in ("answers", "likelihood"):
        raise UsageError(f"--score is answers or likelihood, not {score!r}")
    if score == "likelihood" and (strategies or alone):
        raise UsageError("--score likelihood draws nothing, so it takes no --strategies and no --alone")
    found = find(model)
    request = service.ReasonRequest(
        suite=suite,
        score="likelihood" if score == "likelihood" else "answers",
        alone=alone,
        strategies=tuple(strategies.split(",")) if strategies is not None else (),
        samples=samples,
        limit=limit,
        sampling=sampling_request(
            temperature=temp,
            top_p=top_p,
            min_p=min_p,
            top_k=top_k,
            seed=seed,
            max_tokens=max_tokens,
            think_budget=think_budget,
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
        ),
        asked=asked_of(think, effort),
        slots=slots,
        ctx_size=ctx_size,
        lora=tuple(map(lora_request, lora or ())),
        from_disk=from_disk,
        out=out,
    )
    with running(console, threads) as run:
        made = service.measure(found, request, run)
    save_rows(console, made.measurements, no_log=no_log)
    # Files come first: the reader of stdout may have closed the pipe (head).
    if csv is not None:
        files.write(csv, tables.as_csv(made))
    if markdown is not None:
        files.write(markdown, tables.as_markdown(made, command()))
    if plot is not None:
        files.write(plot, plot_file(best_first(chart(made), up=1)))
    console.say(f"{tables.title(made)}; {tables.conditions(made)}")
    if console.quiet:
        for each in made.scores:
            console.data(f"{each.row.label}\t{each.accuracy:.4f}")
    show(console, tables.table(made))
    for more in (tables.task_table(made), tables.alone_table(made)):
        if more.rows and console.human:
            console.data("")
            show(console, more)
    show_chart(console, chart(made))
    console.say(tables.LEGEND)
    for line in tables.outcomes(made):
        console.say(line)
    for warning in tables.warnings(made):
        console.warn(warning)
    if made.run is not None:
        console.say(f"drawing took {prediction_line(made.run)}")
    console.say(f"samples and decisions: {made.folder}")
    console.json("dsr.bench.reason/1", made.json())
    if made.interrupted:
        console.say("stopped; repeat the command to resume")
    end(interrupted=made.interrupted)


def show_suites(console: Console) -> None:
    from dataclasses import asdict

    from dsr.bench.kit.table import Table, left, right
    from dsr.suites.suites import all_suites

    lines = all_suites()
    columns = (*left("suite", "questions"), *right("number"), *left("judged by"))
    rows = [(each.name, each.summary, str(each.problems or "any"), each.judge) for each in lines]
    show(console, Table.of(columns, rows))
    console.say(
        "gym: needs reasoning-gym. Settings follow the name: gym:gcd:max_value=50, errors:steps=4, passkey:words=3000"
    )
    console.json("dsr.bench.reason.suites/1", {"suites": [asdict(each) for each in lines]})
