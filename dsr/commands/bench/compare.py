"""`dsr bench compare`: two models, or one before and after, by ratios with intervals."""

from __future__ import annotations

from typing import Annotated

import typer

from dsr.options import JsonOpt, QuietOpt

_Side = Annotated[
    str,
    typer.Argument(help="A model (its newest rows), the number of a kept row (12), or a file of --json or --jsonl."),
]
_HEADER = ("test", "A", "B", "", "B / A", "95 %", "")


def compare(
    a: _Side,
    b: _Side,
    force: Annotated[
        bool, typer.Option("--force", help="Compare also what was measured under different conditions.")
    ] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """What B is beside A, figure by figure, and whether that is more than chance.

    dsr bench compare q4.gguf q8.gguf

    dsr bench compare 12 31

    dsr bench compare before.jsonl after.jsonl --force
    """
    from dataclasses import asdict
    from pathlib import PurePath

    from dsr.bench.history import compare as service
    from dsr.bench.history.history import chosen
    from dsr.bench.speed.tables import UNITS, value
    from dsr.store import paths
    from dsr.store.measurements import Measurements
    from dsr.ui.console import Console
    from runtime.base.words import counted

    console = Console(json_mode=json, quiet=quiet)
    with Measurements(paths.measurements_file()) as store:
        first, second = chosen(a, store), chosen(b, store)
    made = service.compare(first, second, force=force)
    console.say(f"A: {PurePath(made.first).name}, B: {PurePath(made.second).name}")
    rows = []
    for ratio in made.ratios:
        interval = f"{ratio.low:.3f}-{ratio.high:.3f}" if ratio.low is not None and ratio.high is not None else ""
        figures = value(ratio.first, ratio.figure), value(ratio.second, ratio.figure)
        unit = UNITS.get(ratio.figure, ratio.figure.replace("_", " "))
        differs = "differs" if ratio.differs else ""
        rows.append((ratio.test, *figures, unit, f"{ratio.ratio:.3f}", interval, differs))
        if quiet and not json:
            console.data(f"{ratio.kind}\t{ratio.test}\t{ratio.figure}\t{ratio.ratio:.4f}")
    console.table(_HEADER, rows, right=(1, 2, 4, 5))
    console.say(service.in_words(made))
    if made.alone:
        shown = ", ".join(made.alone[:5]) + (", ..." if len(made.alone) > 5 else "")
        console.say(f"{counted(len(made.alone), 'test')} of one of them alone: {shown}")
    if made.differences:
        console.warn(f"measured under different conditions: {'; '.join(made.differences)}")
    for row in dict.fromkeys(row.conditions.disturbed for row in (*first, *second) if row.conditions.disturbed):
        console.warn(f"measured while {row}")
        break
    console.json("dsr.bench.compare/1", asdict(made))
