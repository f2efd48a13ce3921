"""Predicted memory against measured memory, of the speed bench and of all other runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dsr.bench.report.families import Family
from dsr.store.measurement import Measurement, short_name
from dsr.store.predictions import PredictedRun
from dsr.ui.charts.chart import Axis, Chart, Mark
from dsr.ui.charts.scales import spread, unit
from runtime.base.types import ByteCount

_LABELS = 4  # the most labels
_LARGE = 0.1  # relative error from which on a mark has a label

Pair = tuple[str, str, float, float]  # family, file, predicted bytes, measured bytes


def memory(families: Sequence[Family], runs: Sequence[PredictedRun], command: str) -> Chart:
    pairs = [pair for pair in dict.fromkeys([*_of_files(families), *_of_runs(families, runs)]) if min(pair[2:]) >= 1]
    values = [value for _, _, *both in pairs for value in both]
    size, of_size = unit(values)
    marks = [_mark(*pair, size) for pair in pairs]
    far = sorted(marks, key=_error, reverse=True)[:_LABELS]
    return Chart(
        name="memory",
        title="Memory, predicted and measured",
        lead="On the line, the prediction was right. Above it, the model used more memory than predicted. "
        f"Labels: the largest errors above {_LARGE:.0%}.",
        heads=("file", "predicted", "measured", "off by"),
        across=Axis(f"predicted, {of_size}", logarithmic=spread(values), zero=True),
        up=Axis(f"measured, {of_size}", logarithmic=spread(values), zero=True),
        marks=tuple(mark if mark in far and _error(mark) > _LARGE else replace(mark, label="") for mark in marks),
        command=command,
        diagonal=True,
        order=tuple(family.name for family in families),
    )


def _of_files(families: Sequence[Family]) -> Iterator[Pair]:
    """The latest measurement of each file."""
    for family in families:
        for file in family.files:
            rows: list[Measurement] = [
                row for row in file.of("speed") if {"predicted_bytes", "bytes"} <= row.figures.keys()
            ]
            for row in rows[-1:]:
                yield family.name, file.name, row.figures["predicted_bytes"].mean, row.figures["bytes"].mean


def _of_runs(families: Sequence[Family], runs: Sequence[PredictedRun]) -> Iterator[Pair]:
    known = {short_name(file.model): (family.name, file.name) for family in families for file in family.files}
    for run in runs:
        name = short_name(run.model)
        yield *known.get(name, (name, name)), run.predicted.memory, run.measured.memory


def _mark(series: str, name: str, predicted: float, measured: float, size: float) -> Mark:
    off = f"{predicted / measured - 1:+.0%}".replace("-", "\N{MINUS SIGN}")
    return Mark(
        label=f"{name} {off}",
        name=name,
        figures=(f"{ByteCount(predicted)} predicted", f"{ByteCount(measured)} measured", off),
        across=predicted / size,
        up=measured / size,
        low=measured / size,
        high=measured / size,
        series=series,
    )


def _error(mark: Mark) -> float:
    """The relative error of the prediction."""
    return abs(mark.across / mark.up - 1)
