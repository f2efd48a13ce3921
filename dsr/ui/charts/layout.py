"""Where the marks, lines and labels of a chart are on a screen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from dsr.ui.charts.chart import Chart, Mark
from dsr.ui.charts.labels import Box, Label, placed, width
from dsr.ui.charts.scales import Scale, fitting
from dsr.ui.text import truncate_middle

_MOST_LABELS = 80  # labels that are tried: there is never room for more
_MANY = 24  # marks from which on they are drawn small


@dataclass(frozen=True, slots=True)
class Screen:
    """The screen of a picture. `across` (its width) and `letters` (the size of the font) are in units of the
    picture, `ticks` is the most of them, `name_length` the most characters of a name."""

    name: str
    across: int
    letters: int
    ticks: int = 7
    name_length: int = 26


PHONE = Screen("phone", 480, 15)
WIDE = Screen("wide", 480, 11)
BROAD = Screen("wide", 960, 10, ticks=12, name_length=40)  # for charts that take the full width of a page


@dataclass(frozen=True, slots=True)
class ChartLayout:
    """`top` is where the chart begins, below the legend."""

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
        """The series that need a legend: no label of their marks has their name."""
        named = {mark.series for mark, (_, label) in self.named() if label and mark.label == mark.series}
        several = len(self.chart.series) > 1
        return tuple(series for series in self.chart.series if series and series not in named) if several else ()

    @property
    def diagonal(self) -> list[tuple[float, float]]:
        """The ends of the line where both values are equal; empty for a chart without it."""
        across, up = self.across, self.up
        ends = max(across.low, up.low), min(across.high, up.high)
        return [(across.at(value), up.at(value)) for value in ends] if self.chart.diagonal else []

    def lines(self) -> dict[str, list[tuple[float, float]]]:
        """By series, the points of its line; empty for a chart that joins no marks."""
        if not self.chart.joined:
            return {}
        ordered = sorted(self.chart.marks, key=lambda mark: (mark.across, mark.up))
        return {series: [self.place(mark) for mark in ordered if mark.series == series] for series in self.chart.series}

    def named(self) -> list[tuple[Mark, tuple[str, Label | None]]]:
        """Each mark with its shortened label and the label's place; None if there is no room."""
        marks = self.chart.marks
        first = set(islice((n for n, mark in enumerate(marks) if mark.label), _MOST_LABELS))
        texts = [
            truncate_middle(mark.label, self.screen.name_length) if n in first else "" for n, mark in enumerate(marks)
        ]
        places = [self.place(mark) for mark in marks]
        lines = [*self.lines().values(), self.diagonal]
        found = placed(places, texts, self.area, self.screen.letters, self.radius, lines)
        return list(zip(marks, zip(texts, found, strict=True), strict=True))


def laid_out(chart: Chart, screen: Screen, top: float) -> ChartLayout:
    """The layout of a chart that has marks, `top` units below the upper edge of the picture."""
    last = max(mark.across for mark in chart.marks)
    ending = [
        truncate_middle(mark.label, screen.name_length) for mark in chart.marks if mark.label and mark.across == last
    ]
    # Lines with a label at their right end leave room for it.
    right_labels = max((width(text, screen.letters) for text in ending), default=0.0) if chart.joined else 0.0
    left = 18.0 + 4.4 * screen.letters
    right = max(screen.across - 14.0 - right_labels, screen.across / 2)
    bottom = top + chart.high - 3.6 * screen.letters
    ups = [value for mark in chart.marks for value in (mark.low, mark.up, mark.high)]
    acrosses = [mark.across for mark in chart.marks]
    if chart.diagonal:
        ups = acrosses = [*ups, *acrosses]
    across = fitting(acrosses, left, right, logarithmic=chart.across.logarithmic, zero=chart.across.zero)
    up = fitting(ups, bottom, top + 8, logarithmic=chart.up.logarithmic, zero=chart.up.zero)
    return ChartLayout(chart, screen, across, up, top)
