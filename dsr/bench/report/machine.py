"""Where a report's measurements were made, and what disturbed them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from dsr.bench.report.gather import Gathered
from dsr.store import predictions
from dsr.store.measurement import Measurement
from runtime.base.types import ByteCount
from runtime.base.words import counted


def warnings(rows: Sequence[Measurement]) -> tuple[str, ...]:
    machines = {(row.conditions.processor, row.conditions.cores, row.conditions.memory) for row in rows}
    engines = {row.conditions.engine for row in rows}
    told = []
    if len(machines) > 1:
        told.append(f"Measured on {len(machines)} machines: speeds are not to be compared.")
    if len(engines) > 1:
        told.append(f"Measured with engines {' and '.join(sorted(engines))}: speeds are not to be compared.")
    return tuple(told)


def machine(gathered: Gathered) -> tuple[str, ...]:
    lines = dict.fromkeys(
        f"{each.processor}, {counted(each.cores, 'core')}, {ByteCount(each.memory)} of memory; "
        f"dsr {each.dsr}, llama-cpp-python {each.engine}"
        for each in (row.conditions for row in gathered.rows)
    )
    loads = [min(max(row.conditions.load, 0.0), 1.0) for row in gathered.rows]
    load = f"Other work took {statistics.fmean(loads):.0%} of the processor meanwhile, at most {max(loads):.0%}."
    forecast = predictions.in_words(gathered.runs)
    return (*lines, load, *([f"Forecasts {forecast}."] if forecast else []))


def disturbed(gathered: Gathered) -> tuple[str, ...]:
    """A line for each file: what was noticed where other work took most. It changes no answer, only speeds."""
    told = []
    for file in gathered.files:
        found = [row for row in file.of("speed") if row.conditions.disturbed]
        if found:
            worst = max(found, key=lambda row: row.conditions.load)
            of = f"{len(found)} of {counted(len(file.of('speed')), 'measurement')} of speed"
            told.append(f"{file.name}, {of}: {worst.conditions.disturbed} ({worst.test})")
    return tuple(told)
