"""`dsr bench speed`: speed and memory of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsr.commands.bench.shared import NoLogOpt, check_files, command, end, running, save_rows, show
from dsr.options import FromDiskOpt, JsonlOpt, JsonOpt, KvFullOpt, MarkdownOpt, QuietOpt


def speed(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Models to measure: short names, org/repo[:quant], or paths to GGUF files."
        ),
    ],
    pp: Annotated[
        str, typer.Option("--pp", "-p", metavar="LIST", help="Prompt lengths to measure, in tokens; 0 for none.")
    ] = ("512"),
    tg: Annotated[
        str, typer.Option("--tg", "-n", metavar="LIST", help="Numbers of tokens to generate; 0 for none.")
    ] = "128",
    depth: Annotated[
        str,
        typer.Option("--depth", "-d", metavar="LIST", help="Tokens already in the context before each measurement."),
    ] = "0",
    votes: Annotated[
        str, typer.Option("--vote", metavar="LIST", help="Numbers of parallel samples of one prompt; 0 for none.")
    ] = "1-8*2",
    threads: Annotated[
        str | None,
        typer.Option("--threads", "-t", metavar="LIST", show_default=False, help="CPU threads. Default: measured."),
    ] = None,
    kv_type: Annotated[
        str,
        typer.Option(
            "--kv-type", metavar="LIST", help="Types of the KV cache: f16, q8_0, q4_0, ..., or k=q8_0,v=q4_0."
        ),
    ] = "f16",
    kv_full: KvFullOpt = False,
    from_disk: FromDiskOpt = "auto",
    repetitions: Annotated[
        int, typer.Option("--repetitions", "-r", min=1, max=1000, metavar="N", help="Repetitions of each measurement.")
    ] = 5,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the measurements to a CSV file.")
    ] = None,
    markdown: MarkdownOpt = None,
    rows_file: Annotated[
        Path | None, typer.Option("--rows", metavar="FILE", help="Write the measurements as JSON lines.")
    ] = None,
    no_log: NoLogOpt = False,
    json: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Measure the speed and memory of models.

    The tests are those of llama-bench and llama-batched-bench -pps, with real sampling. A LIST is, for example,
    128,512 or 1-4 or 512-2048+512 (steps) or 1-8*2 (doubling).

    dsr bench speed nano

    dsr bench speed deepseek-r1:7b --depth 0,4096 --threads 1-4

    dsr bench speed q4.gguf q8.gguf --kv-type f16,q8_0 --csv speed.csv
    """
    from dsr.bench.history import formats
    from dsr.bench.kit import energy, files
    from dsr.bench.kit.ranges import numbers
    from dsr.bench.speed import bench as service
    from dsr.bench.speed import tables
    from dsr.models.library import find
    from dsr.ui.console import Console
    from runtime.gguf.kv_types import kv_types_in

    console = Console(json_mode=json, quiet=quiet, jsonl=jsonl)
    request = service.SpeedRequest(
        prompts=numbers(pp, "--pp"),
        generated=numbers(tg, "--tg"),
        depths=numbers(depth, "--depth"),
        votes=numbers(votes, "--vote"),
        threads=numbers(threads, "--threads", least=1) if threads is not None else (None,),
        kv_types=kv_types_in(kv_type),
        kv_full=kv_full,
        from_disk=from_disk,
        repetitions=repetitions,
    )
    check_files(csv, markdown, rows_file)
    work = [job for model in map(find, models) for job in service.jobs(model, model.card, request)]
    with running(console) as run:
        made = service.measure(work, run, keep=lambda rows: save_rows(console, rows, no_log=no_log))
    rows = made.rows
    notes = [f"{failure.model}: {failure.why}" for failure in made.failures]
    if rows:
        notes += [*tables.warnings(rows), *filter(None, [energy.missing_reason()])]
    # Files come first: the reader of stdout may have closed the pipe (head).
    if csv is not None and rows:
        files.write(csv, formats.as_csv(rows))
    if rows_file is not None and rows:
        files.write(rows_file, formats.as_jsonl(rows))
    if markdown is not None and rows:
        files.write(markdown, tables.as_markdown(rows, command(), notes))
    if rows:
        console.say(tables.title(rows))
        show(console, tables.table(rows))
        console.say(tables.legend(rows))
        if console.quiet:
            for row in rows:
                console.data(f"{row.model}\t{row.test}\t{row.figures[formats.main_figure(row)].mean:.6g}")
    for failure in made.failures:
        console.warn(f"{failure.model} was not measured to the end: {failure.why}")
    for warning in tables.warnings(rows):
        console.warn(warning)
    if rows and (missing := energy.missing_reason()):
        console.say(f"no tokens per joule: {missing}")
    console.json(
        "dsr.bench.speed/1",
        {
            "rows": [formats.as_object(row) for row in rows],
            "failed": [{"model": failure.model, "why": failure.why} for failure in made.failures],
            "interrupted": made.interrupted,
        },
    )
    if made.interrupted:
        console.say("stopped; the measurements so far are saved" if rows and not no_log else "stopped")
    end(interrupted=made.interrupted, failed=[failure.exit_code for failure in reversed(made.failures)])
