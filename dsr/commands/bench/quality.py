"""`dsr bench quality`: the loss of files against their original weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsr.commands.bench.shared import NoLogOpt, check_files, command, end, running, save_rows, show
from dsr.options import CsvOpt, JsonlOpt, JsonOpt, MarkdownOpt, QuietOpt, ThreadsOpt


def quality(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Models to measure: short names, org/repo[:quant], or paths to GGUF files."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="MODEL",
            show_default=False,
            help="Reference model: F16 or BF16, or the least quantized file you have.",
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option(
            "--text", metavar="FILE|builtin", help="Text to read. The built-in text is never used for calibration."
        ),
    ] = "builtin",
    chunks: Annotated[
        int | None,
        typer.Option(
            "--chunks", min=1, metavar="N", show_default=False, help="Maximum chunks of text to read. Default: all."
        ),
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option(
            "--ctx-size", "-c", min=16, metavar="N", show_default=False, help="Tokens in each chunk. Default: 512."
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Read whole conversations and score every token. Use it for models that know only their chat format.",
        ),
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="FILE",
            help="Save the reference's output in this file, or use the saved output instead of --against.",
        ),
    ] = None,
    threads: ThreadsOpt = None,
    csv: CsvOpt = None,
    markdown: MarkdownOpt = None,
    no_log: NoLogOpt = False,
    json: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Measure the loss of quantized files: perplexity and KL divergence from the original.

    All models read the same text and are compared token by token. --base saves the reference's output, so that you can
    measure other files later without the reference.

    dsr bench quality nano --against nano-f16.gguf

    dsr bench quality q4.gguf q3.gguf --against f16.gguf --text wiki.txt --chunks 20

    dsr bench quality q4.gguf --base f16.base --text wiki.txt

    dsr bench quality nano-q4.gguf --against nano --whole
    """
    from dsr.bench.kit import files
    from dsr.bench.quality import bench as service
    from dsr.bench.quality import tables as report
    from dsr.bench.quality.bench import BUILT_IN
    from dsr.models.library import find
    from dsr.store.measurement import Measurement
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet, jsonl=jsonl)
    request = service.QualityRequest(
        against=None if against is None else find(against),
        text=None if text == BUILT_IN else Path(text),
        chunks=chunks,
        context=ctx,
        base=base,
        whole=whole,
    )
    found = [find(model) for model in models]
    check_files(csv, markdown)

    def keep(row: Measurement) -> None:
        """Saves each row at once, so that a kill loses at most one."""
        save_rows(console, [row], no_log=no_log)

    with running(console, threads) as run:
        made = service.measure(found, request, run, keep=keep)
    # Files come first: the reader of stdout may have closed the pipe (head).
    if csv is not None:
        files.write(csv, report.as_csv(made))
    if markdown is not None:
        files.write(markdown, report.as_markdown(made, command()))
    console.say(report.title(made))
    console.say(report.reference_perplexity(made))
    if console.quiet:
        for each in made.measured:
            console.data(f"{each.model}\t{each.report.kld.value:.6f}")
    show(console, report.table(made))
    if console.human:
        console.data("")
    show(console, report.details(made))
    console.say(report.LEGEND)
    if report.about_base(made):
        console.say(report.about_base(made))
    for warning in report.warnings(made):
        console.warn(warning)
    console.json("dsr.bench.quality/1", made.json())
    end(interrupted=made.interrupted, failed=[error.exit_code for _, error in made.failed])
