"""Pictures through matplotlib, and accuracy against tokens as a scatter of letters for a terminal."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.base.disk_errors import disk_errors
from runtime.base.errors import UsageError
from runtime.base.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
MARKS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SEVERAL = "●"
_MAPS_ABREAST = 2
_LABELS = 12  # rows of a heat map that are named


@dataclass(frozen=True, slots=True)
class Axis:
    """What is to the right in a plot: in words for a terminal and for a picture, and its scale."""

    short: str
    long: str
    logarithmic: bool


TOKENS = Axis("tokens per question, logarithmic", "tokens per question, those of stopped samples too", True)
EXPERTS = Axis("experts kept in each layer", "experts kept in each layer (mean over tasks)", False)


@dataclass(frozen=True, slots=True)
class Point:
    """`across` is its place on the axis; `accuracy`, `low` and `high` in percent; `hollow` for what a user could not
    have, an oracle's. In a picture, points of a `series` are joined."""

    label: str
    across: float
    accuracy: float
    low: float
    high: float
    hollow: bool = False
    series: str = ""


def mark(number: int) -> str:
    """The letter of a row in table and scatter."""
    return MARKS[number % len(MARKS)]


def scatter(points: Sequence[Point], width: int = 80, height: int = 16, axis: Axis = TOKENS) -> list[str]:
    """Lines of text, at most `width` wide: percent upwards.

    Point number n is `mark(n)`; where several fall on one place stands ●.
    """
    if not points:
        return []
    left = 6
    inner = max(10, width - left - 1)
    low, high = _rounded_range([point.accuracy for point in points])
    least, most = min(point.across for point in points), max(point.across for point in points)
    cells = [[" "] * inner for _ in range(height)]
    for number, point in enumerate(points):
        across = _place(_scaled(point.across, axis), _scaled(least, axis), _scaled(most, axis), inner)
        row = height - 1 - _place(point.accuracy, low, high, height)
        cells[row][across] = mark(number) if cells[row][across] == " " else _SEVERAL
    named = {0: high, height // 2: (low + high) / 2, height - 1: low}
    lines = [
        f"{f'{named[row]:.0f} %' if row in named else '':>{left - 1}} {'┤' if row in named else '│'}{''.join(cell)}"
        for row, cell in enumerate(cells)
    ]
    ends = f"{max(least, 1):.0f}", f"{max(most, 1):.0f}"
    lines.append(f"{'':>{left}}└{'─' * (inner - 1)}")
    lines.append(f"{'':>{left}}{ends[0]}{axis.short:^{inner - len(ends[0]) - len(ends[1])}}{ends[1]}")
    return [line.rstrip() for line in lines]


def marks_by_place(points: Sequence[Point]) -> list[tuple[Point, str]]:
    """The marks of points that would be written over each other, together at the first of them."""
    found: dict[tuple[str, int], tuple[Point, str]] = {}
    for number, point in enumerate(points):
        place = f"{point.across:.2g}", round(point.accuracy)
        first, marks = found.get(place, (point, ""))
        found[place] = first, marks + mark(number)
    return list(found.values())


def _rounded_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, widened to tens that are at least 10 apart."""
    low, high = 10 * math.floor(min(values) / 10), 10 * math.ceil(max(values) / 10)
    return (low, high) if high > low else (low - 10, high) if low >= 10 else (low, high + 10)


def _scaled(value: float, axis: Axis) -> float:
    return math.log10(max(1.0, value)) if axis.logarithmic else value


def _place(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1)) if high > low else cells // 2


def check(path: Path) -> None:
    """Raises UsageError when this picture could not be made: better before a long run than after it."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: a plot is one of {', '.join(FORMATS)}", hint="--plot FILE.svg")
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed", hint="pip install 'dsr-cli[plots]'")


def save(points: Sequence[Point], path: Path, title: str, axis: Axis = TOKENS) -> None:
    """Write the picture, whole or not at all. Raises UsageError, DoesNotFit, DsrError."""
    check(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    series = list(dict.fromkeys(point.series for point in points if point.series))
    for number, point in enumerate(points):
        around = [[point.accuracy - point.low], [point.high - point.accuracy]]
        colour = f"C{(series.index(point.series) if point.series else number) % 10}"
        axes.errorbar(
            [point.across], [point.accuracy], yerr=around, color=colour, alpha=0.35, capsize=2, linewidth=1, zorder=1
        )
        face = "none" if point.hollow else colour
        label = f"{mark(number)}  {point.label}"
        axes.scatter([point.across], [point.accuracy], edgecolors=colour, facecolors=face, label=label)
    for number, name in enumerate(series):
        joined = sorted((point.across, point.accuracy) for point in points if point.series == name)
        axes.plot(*zip(*joined, strict=True), color=f"C{number % 10}", alpha=0.6, linewidth=1, zorder=1)
    for first, marks in marks_by_place(points):
        axes.annotate(marks, (first.across, first.accuracy), textcoords="offset points", xytext=(5, 5))
    if axis.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.xaxis.set_minor_formatter("{x:.0f}")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel(axis.long)
    axes.set_ylabel("accuracy in percent, with its 95 % interval")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    _write(figure, path)


def save_heat_maps(maps: Sequence[tuple[str, Sequence[tuple[str, Sequence[float]]]]], path: Path, title: str) -> None:
    """Write heat maps, each with its name and its labelled rows as `dsr.ui.heat_map.heat_map` takes them, in one
    picture whose colours double with each step. Raises as `save` does."""
    check(path)
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    across = min(len(maps), _MAPS_ABREAST)
    down = -(-len(maps) // across)
    layers, experts = len(maps[0][1]), len(maps[0][1][0][1])
    wide = max(9 / across - 1, min(8.0, experts / 12))
    high = max(1.6, layers * wide / experts) + 0.6
    figure = Figure(figsize=(wide * across + 1, high * down + 1), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for panel in panels[len(maps) :]:
        panel.set_visible(False)
    for panel, (name, rows) in zip(panels, maps, strict=False):
        values = [[value or float("nan") for value in row] for _, row in rows]
        panel.set_facecolor("0.85")
        image = panel.imshow(values, aspect="auto", cmap="inferno", norm=LogNorm(1 / 16, 16), interpolation="nearest")
        panel.set_title(name, fontsize=9)
        step = -(-len(rows) // _LABELS)
        panel.set_yticks(range(0, len(rows), step), [label for label, _ in rows[::step]], fontsize=7)
        panel.tick_params(axis="x", labelsize=7)
    bar = figure.colorbar(image, ax=list(panels[: len(maps)]), shrink=0.8, ticks=[1 / 16, 1 / 4, 1, 4, 16])
    bar.ax.set_yticklabels(["1/16", "1/4", "1", "4", "16"], fontsize=7)
    bar.set_label("times an even share; grey: never", fontsize=8)
    figure.supxlabel("expert", fontsize=9)
    figure.suptitle(title, fontsize=10)
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    # Without a date the same figures give the same file.
    figure.savefig(picture, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    with disk_errors(path):
        write_atomically(path, picture.getvalue())
