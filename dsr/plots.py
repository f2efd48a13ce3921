"""Accuracy against tokens: a scatter of letters for a terminal, and a picture through matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from quant.output import disk_errors
from runtime.errors import UsageError
from runtime.files import write_atomically

FORMATS = (".png", ".svg")
MARKS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SEVERAL = "●"


@dataclass(frozen=True, slots=True)
class Point:
    """`accuracy`, `low` and `high` in percent; `hollow` for what a user could not have, an oracle's."""

    label: str
    tokens: float
    accuracy: float
    low: float
    high: float
    hollow: bool = False


def mark(number: int) -> str:
    """The letter of a row in table and scatter."""
    return MARKS[number % len(MARKS)]


def scatter(points: Sequence[Point], width: int = 80, height: int = 16) -> list[str]:
    """Lines of text, at most `width` wide: tokens to the right on a logarithmic scale, percent upwards.

    Point number n is `mark(n)`; where several fall on one place stands ●.
    """
    if not points:
        return []
    left = 6
    inner = max(10, width - left - 1)
    low, high = _rounded_range([point.accuracy for point in points])
    first = math.log10(max(1.0, min(point.tokens for point in points)))
    last = math.log10(max(1.0, max(point.tokens for point in points)))
    cells = [[" "] * inner for _ in range(height)]
    for number, point in enumerate(points):
        across = _place(math.log10(max(1.0, point.tokens)), first, last, inner)
        row = height - 1 - _place(point.accuracy, low, high, height)
        cells[row][across] = mark(number) if cells[row][across] == " " else _SEVERAL
    named = {0: high, height // 2: (low + high) / 2, height - 1: low}
    lines = [
        f"{f'{named[row]:.0f} %' if row in named else '':>{left - 1}} {'┤' if row in named else '│'}{''.join(cell)}"
        for row, cell in enumerate(cells)
    ]
    ends = f"{10**first:.0f}", f"{10**last:.0f}"
    middle = "tokens per question, logarithmic"
    lines.append(f"{'':>{left}}└{'─' * (inner - 1)}")
    lines.append(f"{'':>{left}}{ends[0]}{middle:^{inner - len(ends[0]) - len(ends[1])}}{ends[1]}")
    return [line.rstrip() for line in lines]


def marks_by_place(points: Sequence[Point]) -> list[tuple[Point, str]]:
    """The marks of points that would be written over each other, together at the first of them."""
    found: dict[tuple[str, int], tuple[Point, str]] = {}
    for number, point in enumerate(points):
        place = f"{point.tokens:.2g}", round(point.accuracy)
        first, marks = found.get(place, (point, ""))
        found[place] = first, marks + mark(number)
    return list(found.values())


def _rounded_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, widened to tens that are at least 10 apart."""
    low, high = 10 * math.floor(min(values) / 10), 10 * math.ceil(max(values) / 10)
    return (low, high) if high > low else (low - 10, high) if low >= 10 else (low, high + 10)


def _place(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1)) if high > low else cells // 2


def check(path: Path) -> None:
    """Raises UsageError when this picture could not be made: better before a long run than after it."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: a plot is one of {', '.join(FORMATS)}", hint="--plot FILE.svg")
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed", hint="pip install 'dsr-cli[plots]'")


def save(points: Sequence[Point], path: Path, title: str) -> None:
    """Write the picture, whole or not at all. Raises UsageError, DoesNotFit, DsrError."""
    check(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for number, point in enumerate(points):
        around = [[point.accuracy - point.low], [point.high - point.accuracy]]
        colour = f"C{number % 10}"
        axes.errorbar(
            [point.tokens], [point.accuracy], yerr=around, color=colour, alpha=0.35, capsize=2, linewidth=1, zorder=1
        )
        face = "none" if point.hollow else colour
        axes.scatter(
            [point.tokens], [point.accuracy], edgecolors=colour, facecolors=face, label=f"{mark(number)}  {point.label}"
        )
    for first, marks in marks_by_place(points):
        axes.annotate(marks, (first.tokens, first.accuracy), textcoords="offset points", xytext=(5, 5))
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter("{x:.0f}")
    axes.set_xlabel("tokens per question, those of stopped samples too")
    axes.set_ylabel("accuracy in percent, with its 95 % interval")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    picture = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    # Without a date the same figures give the same file.
    figure.savefig(picture, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    with disk_errors(path):
        write_atomically(path, picture.getvalue())
