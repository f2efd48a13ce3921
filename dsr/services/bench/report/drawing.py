"""A chart as SVG: text, markers of different shapes and colours, no script; its colours are variables of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from dsr.progress import shortened
from dsr.services.bench.report.labels import Box, placed, width
from dsr.services.bench.report.scales import Scale, fitting, written

COLOURS = 6  # that a page has variables for: --series-0 and so on
_SHAPES = 6
_WIDE = 480
_SIZE = 15  # of the text where it is largest: on a phone, which shows the picture at three quarters of its size
_RADIUS = 5.0
_MOST = 26  # characters of a name


@dataclass(frozen=True, slots=True)
class Axis:
    """`zero`: it begins there. Values of a logarithmic one are above 0. `ticks` where they are known."""

    title: str
    logarithmic: bool = False
    zero: bool = False
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point: `low` to `high` is its interval. `label` is written beside it where there is room, `tip` shown
    when it is pointed at. `hollow` for what a user could not have, an oracle's."""

    label: str
    across: float
    up: float
    low: float
    high: float
    tip: str
    series: str = ""
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """`name` is for addresses, letters alone. `joined`: the marks of a series are one line. `diagonal`: where across is
    up. `command` makes what is missing when there are no marks. `lead` says how to read it. It is `high` without its
    legend, and 480 wide."""

    name: str
    title: str
    lead: str
    across: Axis
    up: Axis
    marks: tuple[Mark, ...]
    command: str
    joined: bool = False
    diagonal: bool = False
    high: int = 320
    order: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """First those of `order`, so that a file has the same colour in several charts."""
        found = dict.fromkeys(mark.series for mark in self.marks)
        return tuple(dict.fromkeys([*(name for name in self.order if name in found), *found]))


def svg(chart: Chart, *, style: str = "") -> str:
    """The picture of a chart that has marks; with a `style` it can stand alone as a file."""
    legend, top = _legend(chart)
    left, right, bottom = 78.0, _WIDE - 14.0, top + chart.high - 54.0
    ups = [value for mark in chart.marks for value in (mark.low, mark.up, mark.high)]
    acrosses = [mark.across for mark in chart.marks]
    if chart.diagonal:
        ups = acrosses = [*ups, *acrosses]
    across = fitting(acrosses, left, right, logarithmic=chart.across.logarithmic, zero=chart.across.zero)
    up = fitting(ups, bottom, top + 8, logarithmic=chart.up.logarithmic, zero=chart.up.zero)
    area = Box(left + 3, top + 2, _WIDE - 2.0, bottom - 2)
    parts = [
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {top + chart.high:.0f}" role="img"'
        f' aria-labelledby="{chart.name}-title {chart.name}-text">',
        f'<title id="{chart.name}-title">{escape(chart.title)}</title>',
        f'<desc id="{chart.name}-text">{escape(_described(chart))}</desc>',
        *([f"<style>{style}</style>"] if style else []),
        *legend,
        *_across_axis(chart.across, across, up),
        *_up_axis(chart.up, up, across),
        *_lines(chart, across, up),
        *_marks(chart, across, up, area),
        "</svg>",
    ]
    return "\n".join(parts)


def _described(chart: Chart) -> str:
    named = [series for series in chart.series if series]
    of = f" of {len(named)} series: {', '.join(named)}" if len(named) > 1 else ""
    return f"{chart.up.title} against {chart.across.title}. {len(chart.marks)} points{of}."


def _legend(chart: Chart) -> tuple[list[str], float]:
    """Its elements, and where the picture begins below them."""
    named = [series for series in chart.series if series]
    if len(named) < 2:
        return [], 0.0
    parts, x, y = [], 12.0, 14.0
    for series in named:
        text = shortened(series, _MOST)
        wide = 18 + width(text, _SIZE) + 14
        if x > 12 and x + wide > _WIDE:
            x, y = 12.0, y + 22
        number = chart.series.index(series)
        parts += [_shape(number, x, y, False), _text(text, x + 11, y, "start")]
        x += wide
    return parts, y + 14


def _across_axis(axis: Axis, across: Scale, up: Scale) -> Iterator[str]:
    room = across.begin - 30
    for value in axis.ticks or across.ticks(7):
        if not across.low <= value <= across.high:
            continue
        x, text = across.at(value), written(value)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{up.begin:.1f}" y2="{up.end:.1f}"/>'
        half = width(text, _SIZE) / 2
        if x - half >= room and x + half <= _WIDE:
            yield _text(text, x, up.begin + 15, "middle", "tick")
            room = x + half + 6
    yield _text(axis.title, (across.begin + across.end) / 2, up.begin + 43, "middle", "axis")


def _up_axis(axis: Axis, up: Scale, across: Scale) -> Iterator[str]:
    for value in axis.ticks or up.ticks(7):
        if up.low <= value <= up.high:
            y = up.at(value)
            yield f'<line class="grid" x1="{across.begin:.1f}" x2="{across.end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _text(written(value), across.begin - 7, y, "end", "tick")
    middle = (up.begin + up.end) / 2
    yield (
        f'<text class="axis" x="12" y="{middle:.1f}" text-anchor="middle" dominant-baseline="central" '
        f'transform="rotate(-90 12 {middle:.1f})">{escape(axis.title)}</text>'
    )


def _lines(chart: Chart, across: Scale, up: Scale) -> Iterator[str]:
    if chart.diagonal:
        low, high = max(across.low, up.low), min(across.high, up.high)
        yield (
            f'<line class="same" x1="{across.at(low):.1f}" y1="{up.at(low):.1f}" '
            f'x2="{across.at(high):.1f}" y2="{up.at(high):.1f}"/>'
        )
    for number, series in enumerate(chart.series if chart.joined else ()):
        along = sorted((mark.across, mark.up) for mark in chart.marks if mark.series == series)
        points = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in along)
        yield f'<polyline class="join {_colour(number)}" points="{points}"/>'


def _marks(chart: Chart, across: Scale, up: Scale, area: Box) -> Iterator[str]:
    places = [(across.at(mark.across), up.at(mark.up)) for mark in chart.marks]
    texts = [shortened(mark.label, _MOST) for mark in chart.marks]
    labels = placed(places, texts, area, _SIZE, _RADIUS)
    for mark, (x, _) in zip(chart.marks, places, strict=True):
        if mark.low < mark.high:
            ends = f'y1="{up.at(mark.low):.1f}" y2="{up.at(mark.high):.1f}"'
            number = chart.series.index(mark.series)
            yield f'<line class="error {_colour(number)}" x1="{x:.1f}" x2="{x:.1f}" {ends}/>'
    for (x, y), label in zip(places, labels, strict=True):
        if label is not None and label.far:
            yield f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{label.x:.1f}" y2="{label.y:.1f}"/>'
    for mark, (x, y) in zip(chart.marks, places, strict=True):
        shape = _shape(chart.series.index(mark.series), x, y, mark.hollow)
        touch = f'<circle class="touch" cx="{x:.1f}" cy="{y:.1f}" r="11"/>'
        yield f"<g><title>{escape(mark.tip)}</title>{touch}{shape}</g>"
    for text, label in zip(texts, labels, strict=True):
        if label is not None:
            yield _text(text, label.x, label.y, label.anchor, "label")


def _text(text: str, x: float, y: float, anchor: str, kind: str = "label") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'dominant-baseline="central">{escape(text)}</text>'
    )


def _colour(number: int) -> str:
    return f"colour-{number % COLOURS}"


def _shape(number: int, x: float, y: float, hollow: bool) -> str:
    """Colour and shape together are another for each of the first 36."""
    kind = f"mark {_colour(number)}{' hollow' if hollow else ''}"
    shape = (number + number // COLOURS) % _SHAPES
    if shape == 0:
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}"/>'
    corners = {1: (4, 45), 2: (3, -90), 3: (4, 0), 4: (3, 90), 5: (5, -90)}[shape]
    return f'<polygon class="{kind}" points="{_polygon(x, y, *corners)}"/>'


def _polygon(x: float, y: float, corners: int, turned: float) -> str:
    angles: Sequence[float] = [math.radians(turned + 360 * corner / corners) for corner in range(corners)]
    radius = _RADIUS * 1.25
    return " ".join(f"{x + radius * math.cos(angle):.1f},{y + radius * math.sin(angle):.1f}" for angle in angles)
