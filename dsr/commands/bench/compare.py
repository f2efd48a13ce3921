"""`dsr bench compare`: ratios of two models' measurements, with intervals."""

from __future__ import annotations

from typing import Annotated

import typer

from dsr.commands.bench.shared import show
from dsr.options import JsonOpt, QuietOpt

_Side = Annotated[
    str,
    typer.Argument(help="Model, number of a measurement (see dsr bench history), or a file from --json or --rows."),
]


def compare(
    a: _Side,
    b: _Side,
    force: Annotated[
        bool, typer.Option("--force", help="Compare even if the conditions of the measurements differ.")
    ] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Compare two models or measurements, with the uncertainty of each ratio.

    dsr bench compare q4.gguf q8.gguf

    dsr bench compare 12 31

    dsr bench compare before.jsonl after.jsonl --force
    """
    from dataclasses import asdict
    from pathlib import PurePath

    from dsr.bench.history import compare as service
    from dsr.bench.history.history import chosen
    from dsr.store import paths
    from dsr.store.measurements import Measurements
    from dsr.ui.console import Console
    from runtime.base.types import counted

    console = Console(json_mode=json, quiet=quiet)
    with Measurements(paths.measurements_file()) as store:
        first, second = chosen(a, store), chosen(b, store)
    made = service.compare(first, second, force=force)
    console.say(f"A: {PurePath(made.first).name}, B: {PurePath(made.second).name}")
    if quiet and not json:
        for ratio in made.ratios:
            console.data(f"{ratio.kind}\t{ratio.test}\t{ratio.figure}\t{ratio.ratio:.4f}")
    show(console, service.table(made))
    console.say(service.summary(made))
    if made.alone:
        shown = ", ".join(made.alone[:5]) + (", ..." if len(made.alone) > 5 else "")
        console.say(f"only one has {counted(len(made.alone), 'test')}: {shown}")
    if made.differences:
        console.warn(f"measured under different conditions: {'; '.join(made.differences)}")
    for row in dict.fromkeys(row.conditions.disturbed for row in (*first, *second) if row.conditions.disturbed):
        console.warn(f"measured while {row}")
        break
    console.json("dsr.bench.compare/1", asdict(made))
