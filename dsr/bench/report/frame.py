"""Where the values of a chart lie on a screen, and the names beside them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from dsr.bench.report.chart import Chart, Mark
from dsr.bench.report.labels import Box, Label, placed, width
from dsr.bench.report.scales import Scale, fitting
from dsr.ui.width import truncate_middle

_NAMES = 80  # that are tried: more never have room
_MANY = 24  # marks from which on they are small


@dataclass(frozen=True, slots=True)
class Screen:
    """What a picture is drawn for: so many units wide, with letters of so many, at most so many ticks, and names of so
    many letters."""

    name: str
    across: int
    letters: int
    ticks: int = 7
    name_length: int = 26


PHONE = Screen("phone", 480, 15)
WIDE = Screen("wide", 480, 11)
BROAD = Screen("wide", 960, 10, ticks=12, name_length=40)  # for charts that have a row of the page for themselves


@dataclass(frozen=True, slots=True)
class Frame:
    """Where values lie; `top` is below the legend."""

    chart: Chart
    screen: Screen
    across: Scale
    up: Scale
    top: float

    @property
    def radius(self) -> float:
        return 5.0 if len(self.chart.marks) < _MANY else 3.5

    @property
    def area(self) -> Box:
        return Box(self.across.begin + 3, self.top + 2, self.screen.across - 2.0, self.up.begin - 2)

    def place(self, mark: Mark) -> tuple[float, float]:
        return self.across.at(mark.across), self.up.at(mark.up)

    @property
    def unnamed(self) -> tuple[str, ...]:
        """The series that a legend must tell of: those whose name stands beside none of their marks."""
        named = {mark.series for mark, (_, label) in self.named() if label and mark.label == mark.series}
        several = len(self.chart.series) > 1
        return tuple(series for series in self.chart.series if series and series not in named) if several else ()

    @property
    def diagonal(self) -> list[tuple[float, float]]:
        """Where across is up."""
        across, up = self.across, self.up
        ends = max(across.low, up.low), min(across.high, up.high)
        return [(across.at(value), up.at(value)) for value in ends] if self.chart.diagonal else []

    def lines(self) -> dict[str, list[tuple[float, float]]]:
        """By series, where they are joined."""
        if not self.chart.joined:
            return {}
        ordered = sorted(self.chart.marks, key=lambda mark: (mark.across, mark.up))
        return {series: [self.place(mark) for mark in ordered if mark.series == series] for series in self.chart.series}

    def named(self) -> list[tuple[Mark, tuple[str, Label | None]]]:
        """Each mark with the text beside it, and its place where there is room."""
        marks = self.chart.marks
        first = set(islice((n for n, mark in enumerate(marks) if mark.label), _NAMES))
        texts = [
            truncate_middle(mark.label, self.screen.name_length) if n in first else "" for n, mark in enumerate(marks)
        ]
        places = [self.place(mark) for mark in marks]
        lines = [*self.lines().values(), self.diagonal]
        found = placed(places, texts, self.area, self.screen.letters, self.radius, lines)
        return list(zip(marks, zip(texts, found, strict=True), strict=True))


def framed(chart: Chart, screen: Screen, top: float) -> Frame:
    """Of a chart that has marks."""
    last = max(mark.across for mark in chart.marks)
    ending = [
        truncate_middle(mark.label, screen.name_length) for mark in chart.marks if mark.label and mark.across == last
    ]
    # Lines that have their names at their right end leave room for them.
    beside = max((width(text, screen.letters) for text in ending), default=0.0) if chart.joined else 0.0
    left = 18.0 + 4.4 * screen.letters
    right = max(screen.across - 14.0 - beside, screen.across / 2)
    bottom = top + chart.high - 3.6 * screen.letters
    ups = [value for mark in chart.marks for value in (mark.low, mark.up, mark.high)]
    acrosses = [mark.across for mark in chart.marks]
    if chart.diagonal:
        ups = acrosses = [*ups, *acrosses]
    across = fitting(acrosses, left, right, logarithmic=chart.across.logarithmic, zero=chart.across.zero)
    up = fitting(ups, bottom, top + 8, logarithmic=chart.up.logarithmic, zero=chart.up.zero)
    return Frame(chart, screen, across, up, top)
