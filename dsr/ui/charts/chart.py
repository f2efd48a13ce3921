"""A chart as data: its axes and its marks. `svg` and `terminal` draw it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

COLOURS = 6  # series that get a colour of their own; further series are grey


@dataclass(frozen=True, slots=True)
class Axis:
    """`zero`: the axis begins at 0. The values of a logarithmic axis are above 0. `ticks`: the ticks, where they are
    known."""

    title: str
    logarithmic: bool = False
    zero: bool = False
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point at (`across`, `up`) with the interval `low` to `high`.

    `label` is written next to the mark if there is room. `name` and `figures` are its row in the chart's table.
    `hollow`: not comparable with the other marks.
    """

    label: str
    name: str
    figures: tuple[str, ...]
    across: float
    up: float
    low: float
    high: float
    series: str = ""
    hollow: bool = False

    @property
    def tip(self) -> str:
        """The text that a browser shows when the pointer is over the mark."""
        return f"{self.name}: {', '.join(figure for figure in self.figures if figure)}"


@dataclass(frozen=True, slots=True)
class Chart:
    """`name` is used in addresses: letters, digits and hyphens. `lead` says how to read the chart.

    `joined`: a line joins the marks of a series. `diagonal`: a line where both values are equal. `broad`: takes the
    full width of a page. `high`: its height in units of the picture. `order`: series in the order of their colours.
    `heads`: the columns of the table of marks (a name, then figures). `command` measures what an empty chart lacks.
    """

    name: str
    title: str
    across: Axis
    up: Axis
    marks: tuple[Mark, ...]
    lead: str = ""
    heads: tuple[str, ...] = ()
    command: str = ""
    joined: bool = False
    diagonal: bool = False
    broad: bool = False
    high: int = 320
    order: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The series that have marks, in the order of their colours."""
        return tuple(sorted(dict.fromkeys(mark.series for mark in self.marks), key=self.number))

    def number(self, series: str) -> int:
        """The place of a series in the order of colours, equal in all charts that share an `order`."""
        return list(dict.fromkeys([*self.order, *(mark.series for mark in self.marks)])).index(series)

    @property
    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Heads and rows of the marks, sorted by series and by `across`, without empty columns."""
        place = {series: number for number, series in enumerate(self.series)}
        marks = sorted(self.marks, key=lambda mark: (place[mark.series], mark.across, mark.name))
        rows = [(mark.name, *mark.figures) for mark in marks]
        kept = [at for at in range(len(self.heads)) if any(row[at] for row in rows)]
        heads, *found = [tuple(row[at] for at in kept) for row in (self.heads, *rows)]
        return heads, tuple(found)


def best_first(chart: Chart, *, up: Literal[1, -1]) -> Chart:
    """The chart with its marks in the order in which they get room for their labels.

    Marks that no mark of their series with less `across` beats come first. `up` is 1 where more is better, else -1.
    """
    ranked = sorted(chart.marks, key=lambda mark: (mark.across, -up * mark.up, mark.label))
    best: dict[str, float] = {}
    first = []
    for mark in ranked:
        if not mark.hollow and (mark.series not in best or up * mark.up > up * best[mark.series]):
            best[mark.series] = mark.up
            first.append(mark)
    return replace(chart, marks=(*first, *(mark for mark in ranked if mark not in first)))
