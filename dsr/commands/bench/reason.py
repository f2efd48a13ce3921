"""`dsr bench reason`: accuracy and tokens by strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    JsonOpt,
    LoraOpt,
    MarkdownOpt,
    ModelArg,
    QuietOpt,
    SlotsOpt,
    SuiteOpt,
    ThinkBudgetOpt,
    ThinkOpt,
    ThreadsOpt,
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
            help="Strategies to measure: NAME[:KEY=VALUE...],... or all. Default: all that can share samples.",
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
    quiet: QuietOpt = False,
) -> None:
    """Measure how often a model is right with each strategy, and how many tokens that takes.

    Samples are saved: an interrupted run resumes, and other strategies use the same samples.

    dsr bench reason nano --limit 20

    dsr bench reason deepseek-r1:7b --suite math-500 --limit 100 --plot r1.svg

    dsr bench reason nano --strategies direct,vote:n=4:stop=esc,budget
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

    console = Console(json_mode=json, quiet=quiet)
    check_files(csv, markdown, plot=plot)
    found = find(model)
    request = service.ReasonRequest(
        suite=suite,
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
    if quiet and not json:
        for score in made.scores:
            console.data(f"{score.row.label}\t{score.accuracy:.4f}")
    show(console, tables.table(made))
    show_chart(console, chart(made))
    console.say(tables.LEGEND)
    for warning in tables.warnings(made):
        console.warn(warning)
    if made.run is not None:
        console.say(f"drawing took {prediction_line(made.run)}")
    console.say(f"samples and decisions: {made.folder}")
    console.json("dsr.bench.reason/1", made.json())
    if made.interrupted:
        console.say("stopped; repeat the command to resume")
    end(interrupted=made.interrupted)
