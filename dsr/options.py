"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result: no progress, no notes.")]
YesOpt = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
ModelArg = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Short name (deepseek-r1:7b), org/repo[:quant], or path to a GGUF file."),
]
SuiteOpt = Annotated[
    str,
    typer.Option(
        "--suite",
        metavar="NAME|FILE",
        help="Questions with answers, such as nano, basics, gym:laptop or a JSONL file; see --list-suites.",
    ),
]

KvFullOpt = Annotated[
    bool,
    typer.Option("--kv-full", help="Cache all tokens in sliding-window layers, too. Default: only the window."),
]

FromDiskOpt = Annotated[
    str,
    typer.Option(
        "--from-disk",
        metavar="auto|off",
        help="Run a model that is larger than memory from the disk (auto), or refuse it (off). Linux only.",
    ),
]

# How a model answers.
ThinkOpt = Annotated[
    bool | None,
    typer.Option(
        "--think/--no-think",
        show_default=False,
        help="Think before answering, or answer at once. Default: the model decides.",
    ),
]
EffortOpt = Annotated[
    str | None,
    typer.Option(
        "--effort",
        metavar="LEVEL",
        help="How much to think: minimal, low, medium, high or max, if the model knows it. Default: the model's.",
    ),
]
ThinkBudgetOpt = Annotated[
    int | None,
    typer.Option(
        "--think-budget",
        min=0,
        metavar="N",
        help="Maximum thinking tokens; then the model must answer. Default: no limit.",
    ),
]
SlotsOpt = Annotated[int, typer.Option("--slots", min=1, max=255, metavar="N", help="Answers generated in parallel.")]
ThreadsOpt = Annotated[
    int | None, typer.Option("--threads", "-t", min=1, metavar="N", help="CPU threads. Default: measured.")
]

# Where else a result goes.
CsvOpt = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to a CSV file.")]
MarkdownOpt = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write the tables to a Markdown file.")
]
LoraOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--lora", metavar="FILE[:SCALE]", help="LoRA adapter (GGUF) for this model. Repeatable. Default: none, scale 1."
    ),
]
RopeOpt = Annotated[
    str | None,
    typer.Option(
        "--rope",
        metavar="yarn[:FACTOR]",
        help="Scale positions for texts beyond the trained length. Default: no scaling.",
    ),
]
