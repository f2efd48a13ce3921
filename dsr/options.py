"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# The groups of options in the help of a command with many of them.
ANSWER = "Answer"
THINKING = "Thinking"
VOTES = "Votes and strategies"
MEMORY = "Model and memory"
OUTPUT = "Output"

JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]
JsonlOpt = Annotated[
    bool,
    typer.Option("--jsonl", help="Print a JSON object for each event, and the result last.", rich_help_panel=OUTPUT),
]
QuietOpt = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only the result: no progress, no notes.", rich_help_panel=OUTPUT)
]
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
    typer.Option(
        "--kv-full",
        help="Cache all tokens in sliding-window layers, too. Default: only the window.",
        rich_help_panel=MEMORY,
    ),
]

FromDiskOpt = Annotated[
    str,
    typer.Option(
        "--from-disk",
        metavar="auto|off",
        help="Run a model that is larger than memory from the disk (auto), or refuse it (off). Linux only.",
        rich_help_panel=MEMORY,
    ),
]

# How a model answers.
ThinkOpt = Annotated[
    bool | None,
    typer.Option(
        "--think/--no-think",
        show_default=False,
        help="Think before answering, or answer at once. Default: the model decides.",
        rich_help_panel=THINKING,
    ),
]
EffortOpt = Annotated[
    str | None,
    typer.Option(
        "--effort",
        metavar="LEVEL",
        help="How much to think: minimal, low, medium, high or max, if the model knows it. Default: the model's.",
        rich_help_panel=THINKING,
    ),
]
ThinkBudgetOpt = Annotated[
    int | None,
    typer.Option(
        "--think-budget",
        min=0,
        metavar="N",
        help="Maximum thinking tokens; then the model must answer. Default: no limit.",
        rich_help_panel=THINKING,
    ),
]
SlotsOpt = Annotated[int, typer.Option("--slots", min=1, max=255, metavar="N", help="Answers generated in parallel.")]
ThreadsOpt = Annotated[
    int | None,
    typer.Option("--threads", "-t", min=1, metavar="N", help="CPU threads. Default: measured.", rich_help_panel=MEMORY),
]

# Where else a result goes.
CsvOpt = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to a CSV file.")]
MarkdownOpt = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write the tables to a Markdown file.")
]
LoraOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:SCALE]",
        help="LoRA adapter (GGUF) for this model. Repeatable. Default: none, scale 1.",
        rich_help_panel=MEMORY,
    ),
]
RopeOpt = Annotated[
    str | None,
    typer.Option(
        "--rope",
        metavar="yarn[:FACTOR]",
        help="Scale positions for texts beyond the trained length. Default: no scaling.",
        rich_help_panel=MEMORY,
    ),
]
