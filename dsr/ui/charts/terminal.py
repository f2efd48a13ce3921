"""A chart as text for a terminal: a letter for each mark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dsr.ui.charts.chart import Axis, Chart

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SEVERAL = "●"
_LEFT = 6  # columns before the chart: "100 % "


def letter(number: int) -> str:
    """The letter of mark `number`, in the chart and in the table above it."""
    return _LETTERS[number % len(_LETTERS)]


def scatter(chart: Chart, width: int = 80, height: int = 16) -> list[str]:
    """Lines of text, at most `width` columns wide. The values of `chart.up` are percent.

    Mark number n is `letter(n)`, and ● where several marks have the same place. A chart without marks has no lines.
    """
    if not chart.marks:
        return []
    inner = max(10, width - _LEFT - 1)
    low, high = _rounded_range([mark.up for mark in chart.marks])
    values = [mark.across for mark in chart.marks]
    first, last = (_scaled(value, chart.across) for value in (min(values), max(values)))
    cells = [[" "] * inner for _ in range(height)]
    for number, mark in enumerate(chart.marks):
        column = _place(_scaled(mark.across, chart.across), first, last, inner)
        row = height - 1 - _place(mark.up, low, high, height)
        cells[row][column] = letter(number) if cells[row][column] == " " else _SEVERAL
    ticks = {0: high, height // 2: (low + high) / 2, height - 1: low}
    lines = [
        f"{f'{ticks[row]:.0f} %' if row in ticks else '':>{_LEFT - 1}} {'┤' if row in ticks else '│'}{''.join(cell)}"
        for row, cell in enumerate(cells)
    ]
    title = chart.across.title + (", logarithmic" if chart.across.logarithmic else "")
    left, right = f"{max(min(values), 1):.0f}", f"{max(max(values), 1):.0f}"
    lines.append(f"{'':>{_LEFT}}└{'─' * (inner - 1)}")
    lines.append(f"{'':>{_LEFT}}{left}{title:^{inner - len(left) - len(right)}}{right}")
    return [line.rstrip() for line in lines]


def _rounded_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, widened to tens that are at least 10 apart."""
    low, high = 10 * math.floor(min(values) / 10), 10 * math.ceil(max(values) / 10)
    return (low, high) if high > low else (low - 10, high) if low >= 10 else (low, high + 10)


def _scaled(value: float, axis: Axis) -> float:
    return math.log10(max(1.0, value)) if axis.logarithmic else value


def _place(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1)) if high > low else cells // 2
