"""A chart: measured points, what lies across and up, and how to read it; nothing of how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = 6  # that a page has variables for: --series-0 and so on; further series are grey together


@dataclass(frozen=True, slots=True)
class Axis:
    """`zero`: it begins there. Values of a logarithmic one are above 0. `ticks` where they are known."""

    title: str
    logarithmic: bool = False
    zero: bool = False
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point: `low` to `high` is its interval. `label` is written beside it where there is room. `name` and
    `figures` are what a table of the points tells. `hollow` where it is not to be compared with the others."""

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
        return f"{self.name}: {', '.join(figure for figure in self.figures if figure)}"


@dataclass(frozen=True, slots=True)
class Chart:
    """`name` is for addresses: letters, digits and hyphens. `lead` says how to read it, `heads` name the columns of its
    table: those of names and of figures. `joined`: the marks of a series are one line. `diagonal`: where across is up.
    `broad`: on a wide screen it has a row for itself. `command` makes what is missing when there are no marks. `order`
    gives colours to series."""

    name: str
    title: str
    lead: str
    heads: tuple[str, ...]
    across: Axis
    up: Axis
    marks: tuple[Mark, ...]
    command: str
    joined: bool = False
    diagonal: bool = False
    broad: bool = False
    high: int = 320
    order: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """Those that have marks, in the order of their colours."""
        return tuple(sorted(dict.fromkeys(mark.series for mark in self.marks), key=self.number))

    def number(self, series: str) -> int:
        """The same in all charts of one `order`, whichever of it they show."""
        return list(dict.fromkeys([*self.order, *(mark.series for mark in self.marks)])).index(series)

    @property
    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Heads and rows of names and figures by series and what lies across, without columns in which nothing
        stands."""
        place = {series: number for number, series in enumerate(self.series)}
        marks = sorted(self.marks, key=lambda mark: (place[mark.series], mark.across, mark.name))
        rows = [(mark.name, *mark.figures) for mark in marks]
        kept = [at for at in range(len(self.heads)) if any(row[at] for row in rows)]
        heads, *found = [tuple(row[at] for at in kept) for row in (self.heads, *rows)]
        return heads, tuple(found)
