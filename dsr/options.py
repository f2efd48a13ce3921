"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
YesOpt = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ModelArg = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A short name (deepseek-r1:7b), org/repo[:quant], or a path to a GGUF file."),
]
SuiteOpt = Annotated[
    str,
    typer.Option("--suite", metavar="NAME|FILE", help="nano, basics, gsm8k, math-500, aime25, or a file of JSONL."),
]

# How a model answers.
ThinkOpt = Annotated[
    bool | None, typer.Option("--think/--no-think", show_default=False, help="Think first, or answer at once.")
]
ThinkBudgetOpt = Annotated[
    int | None, typer.Option("--think-budget", min=0, metavar="N", help="Close the thought after N tokens.")
]
TempOpt = Annotated[
    float | None, typer.Option("--temp", metavar="T", help="Temperature; 0 is greedy, as recommended without.")
]
TopPOpt = Annotated[float | None, typer.Option("--top-p", metavar="P", help="Nucleus; 1 is off.")]
MinPOpt = Annotated[float | None, typer.Option("--min-p", metavar="P", help="Drop below P times the best; 0 is off.")]
TopKOpt = Annotated[int | None, typer.Option("--top-k", metavar="K", help="Keep the K best; 0 is off.")]
SlotsOpt = Annotated[int, typer.Option("--slots", min=1, max=255, metavar="N", help="Answers drawn at once.")]
ThreadsOpt = Annotated[
    int | None, typer.Option("--threads", "-t", min=1, metavar="N", help="CPU threads; else measured.")
]

# Where else a result goes.
CsvOpt = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table as CSV.")]
MarkdownOpt = Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Write a page with the tables.")]
