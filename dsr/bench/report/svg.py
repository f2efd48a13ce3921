"""A chart as SVG: text, markers of different shapes and colours, no script; its colours are variables of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from dsr.bench.report.chart import COLOURS, Axis, Chart
from dsr.bench.report.frame import Frame, Screen, framed
from dsr.bench.report.labels import width
from dsr.bench.report.scales import written
from dsr.bench.report.shapes import coloured, shape
from dsr.ui.width import truncate_middle

OTHERS = "others"
_ALONE = 1.3  # pixels of a unit, in a file of its own: letters of 14


def svg(chart: Chart, screen: Screen, *, style: str = "") -> str:
    """The picture of a chart that has marks; with a `style` it can stand alone as a file."""
    frame = framed(chart, screen, 0.0)
    legend, top = _legend(chart, screen, frame.unnamed)
    frame = framed(chart, screen, top)
    name, high = f"{chart.name}-{screen.name}", frame.top + chart.high
    size = f'width="{_ALONE * screen.across:.0f}" height="{_ALONE * high:.0f}" ' if style else ""
    parts = [
        f'<svg class="chart {screen.name}" xmlns="http://www.w3.org/2000/svg" role="img" {size}'
        f'viewBox="0 0 {screen.across} {high:.0f}" font-size="{screen.letters}" '
        f'aria-labelledby="{name}-title {name}-text">',
        f'<title id="{name}-title">{escape(chart.title)}</title>',
        f'<desc id="{name}-text">{escape(_described(chart))}</desc>',
        *([f"<style>{style}</style>"] if style else []),
        *legend,
        *_across_axis(chart.across, frame),
        *_up_axis(chart.up, frame),
        *_lines(frame),
        *_marks(frame),
        *_names(frame),
        "</svg>",
    ]
    return "\n".join(parts)


def _described(chart: Chart) -> str:
    named = [series for series in chart.series if series]
    of = f" of {len(named)} series: {', '.join(named)}" if len(named) > 1 else ""
    return f"{chart.up.title} against {chart.across.title}. {len(chart.marks)} points{of}."


def _legend(chart: Chart, screen: Screen, told: Sequence[str]) -> tuple[list[str], float]:
    """Its elements, and where the picture begins below them. All that have no colour of their own are one entry."""
    if not told:
        return [], 0.0
    shown = {min(chart.number(series), COLOURS): series for series in told}
    line = 1.5 * screen.letters
    parts, x, y = [], 12.0, line / 2 + 3
    for number, series in sorted(shown.items()):
        text = truncate_middle(series, screen.name_length) if number < COLOURS else OTHERS
        wide = 18 + width(text, screen.letters) + 14
        if x > 12 and x + wide > screen.across:
            x, y = 12.0, y + line
        parts += [shape(number, x, y, screen.letters / 3), _text(text, x + 11, y, "start")]
        x += wide
    return parts, y + line / 2 + 3


def _across_axis(axis: Axis, frame: Frame) -> Iterator[str]:
    across, up, letters = frame.across, frame.up, frame.screen.letters
    room = across.begin - 2 * letters
    for value in axis.ticks or across.ticks(frame.screen.ticks):
        if not across.low <= value <= across.high:
            continue
        x, text = across.at(value), written(value)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{up.begin:.1f}" y2="{up.end:.1f}"/>'
        half = width(text, letters) / 2
        if x - half >= room and x + half <= frame.screen.across:
            yield _text(text, x, up.begin + letters, "middle", "tick")
            room = x + half + 6
    yield _text(axis.title, (across.begin + across.end) / 2, up.begin + 2.8 * letters, "middle", "axis")


def _up_axis(axis: Axis, frame: Frame) -> Iterator[str]:
    across, up, letters = frame.across, frame.up, frame.screen.letters
    for value in axis.ticks or up.ticks(7):
        if up.low <= value <= up.high:
            y = up.at(value)
            yield f'<line class="grid" x1="{across.begin:.1f}" x2="{across.end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _text(written(value), across.begin - letters / 2, y, "end", "tick")
    x, middle = 0.8 * letters, (up.begin + up.end) / 2
    yield (
        f'<text class="axis" x="{x:.1f}" y="{middle:.1f}" text-anchor="middle" dominant-baseline="central" '
        f'transform="rotate(-90 {x:.1f} {middle:.1f})">{escape(axis.title)}</text>'
    )


def _lines(frame: Frame) -> Iterator[str]:
    if frame.diagonal:
        (x, y), (to_x, to_y) = frame.diagonal
        yield f'<line class="same" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'
    # The grey ones lie under the others.
    for series, along in reversed(frame.lines().items()):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in along)
        yield f'<polyline class="join {coloured(frame.chart.number(series))}" points="{points}"/>'


def _marks(frame: Frame) -> Iterator[str]:
    chart = frame.chart
    beneath = sorted(chart.marks, key=lambda mark: -chart.number(mark.series))
    for mark in beneath:
        if mark.low < mark.high:
            x, low, high = frame.across.at(mark.across), frame.up.at(mark.low), frame.up.at(mark.high)
            kind = f"error {coloured(chart.number(mark.series))}"
            yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
    for mark in beneath:
        x, y = frame.place(mark)
        touch = f'<circle class="touch" cx="{x:.1f}" cy="{y:.1f}" r="11"/>'
        drawn = shape(chart.number(mark.series), x, y, frame.radius, hollow=mark.hollow)
        yield f"<g><title>{escape(mark.tip)}</title>{touch}{drawn}</g>"


def _names(frame: Frame) -> Iterator[str]:
    for mark, (text, label) in frame.named():
        if label is not None:
            x, y = frame.place(mark)
            if label.far:
                yield f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{label.x:.1f}" y2="{label.y:.1f}"/>'
            yield _text(text, label.x, label.y, label.anchor)


def _text(text: str, x: float, y: float, anchor: str, kind: str = "label") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'dominant-baseline="central">{escape(text)}</text>'
    )
