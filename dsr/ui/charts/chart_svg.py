"""A chart as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dsr.ui.charts.chart import COLOURS, Axis, Chart
from dsr.ui.charts.labels import width
from dsr.ui.charts.layout import BROAD, WIDE, ChartLayout, Screen, laid_out
from dsr.ui.charts.scales import written
from dsr.ui.charts.svg import colour_class, document, escaped, file_style, heading, marker, plot_style, text_at
from dsr.ui.text import truncate_middle

OTHERS = "others"
_PLOT_HIGH = 440  # units, of a plot in a file of its own


def chart_svg(chart: Chart, screen: Screen, *, style: str = "") -> str:
    """The <svg> element of a chart that has marks. With a `style` it can be a file of its own."""
    layout, parts = _drawn(chart, screen, 0.0)
    return _document(chart, screen, parts, layout.top + chart.high, style)


def chart_file(chart: Chart) -> str:
    """The content of an SVG file with this chart, for a document that tells its title."""
    return chart_svg(chart, wide_screen(chart), style=file_style()) + "\n"


def plot_file(chart: Chart) -> str:
    """The content of an SVG file that stands alone: title, lead, chart, and the marks that have no room for a label."""
    chart, screen = replace(chart, high=_PLOT_HIGH), BROAD
    head, top = heading(chart.title, chart.lead if chart.marks else "Nothing was measured.", screen)
    if not chart.marks:
        return _document(chart, screen, head, top, plot_style()) + "\n"
    layout, parts = _drawn(chart, screen, top)
    foot, high = heading("", _without_label(layout), screen)
    end = layout.top + chart.high
    parts = [*head, *parts, *([f'<g transform="translate(0 {end:.0f})">', *foot, "</g>"] if foot else [])]
    return _document(chart, screen, parts, end + high, plot_style()) + "\n"


def _drawn(chart: Chart, screen: Screen, top: float) -> tuple[ChartLayout, list[str]]:
    """The elements of a chart and its legend, `top` units below the upper edge."""
    legend, below = _legend(chart, screen, laid_out(chart, screen, 0.0).unnamed, top)
    layout = laid_out(chart, screen, below)
    return layout, [
        *legend,
        *_across_axis(chart.across, layout),
        *_up_axis(chart.up, layout),
        *_lines(layout),
        *_marks(layout),
        *_labels(layout),
    ]


def _document(chart: Chart, screen: Screen, parts: Sequence[str], high: float, style: str) -> str:
    return document(
        parts,
        name=f"{chart.name}-{screen.name}",
        screen=screen,
        high=high,
        title=chart.title,
        text=_description(chart),
        style=style,
    )


def _without_label(layout: ChartLayout) -> str:
    names = [mark.tip for mark, (_, label) in layout.named() if mark.label and label is None]
    return f"Without a label: {'; '.join(names)}." if names else ""


def wide_screen(chart: Chart) -> Screen:
    return BROAD if chart.broad else WIDE


def _description(chart: Chart) -> str:
    named = [series for series in chart.series if series]
    of = f" of {len(named)} series: {', '.join(named)}" if len(named) > 1 else ""
    return f"{chart.up.title} against {chart.across.title}. {len(chart.marks)} points{of}."


def _legend(chart: Chart, screen: Screen, unnamed: Sequence[str], top: float) -> tuple[list[str], float]:
    """Its elements from `top` on, and where they end. All series without a colour share one entry."""
    if not unnamed:
        return [], top
    shown = {min(chart.number(series), COLOURS): series for series in unnamed}
    line = 1.5 * screen.letters
    parts, x, y = [], 12.0, top + line / 2 + 3
    for number, series in sorted(shown.items()):
        text = truncate_middle(series, screen.name_length) if number < COLOURS else OTHERS
        wide = 18 + width(text, screen.letters) + 14
        if x > 12 and x + wide > screen.across:
            x, y = 12.0, y + line
        parts += [marker(number, x, y, screen.letters / 3), text_at(text, x + 11, y, "start")]
        x += wide
    return parts, y + line / 2 + 3


def _across_axis(axis: Axis, layout: ChartLayout) -> Iterator[str]:
    across, up, letters = layout.across, layout.up, layout.screen.letters
    room = across.begin - 2 * letters
    for value in axis.ticks or across.ticks(layout.screen.ticks):
        if not across.low <= value <= across.high:
            continue
        x, text = across.at(value), written(value)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{up.begin:.1f}" y2="{up.end:.1f}"/>'
        half = width(text, letters) / 2
        if x - half >= room and x + half <= layout.screen.across:
            yield text_at(text, x, up.begin + letters, "middle", "tick")
            room = x + half + 6
    yield text_at(axis.title, (across.begin + across.end) / 2, up.begin + 2.8 * letters, "middle", "axis")


def _up_axis(axis: Axis, layout: ChartLayout) -> Iterator[str]:
    across, up, letters = layout.across, layout.up, layout.screen.letters
    for value in axis.ticks or up.ticks(7):
        if up.low <= value <= up.high:
            y = up.at(value)
            yield f'<line class="grid" x1="{across.begin:.1f}" x2="{across.end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield text_at(written(value), across.begin - letters / 2, y, "end", "tick")
    x, middle = 0.8 * letters, (up.begin + up.end) / 2
    yield (
        f'<text class="axis" x="{x:.1f}" y="{middle:.1f}" text-anchor="middle" dominant-baseline="central" '
        f'transform="rotate(-90 {x:.1f} {middle:.1f})">{escaped(axis.title)}</text>'
    )


def _lines(layout: ChartLayout) -> Iterator[str]:
    if layout.diagonal:
        (x, y), (to_x, to_y) = layout.diagonal
        yield f'<line class="same" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'
    # Grey lines are drawn first, below the others.
    for series, along in reversed(layout.lines().items()):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in along)
        yield f'<polyline class="join {colour_class(layout.chart.number(series))}" points="{points}"/>'


def _marks(layout: ChartLayout) -> Iterator[str]:
    chart = layout.chart
    grey_first = sorted(chart.marks, key=lambda mark: -chart.number(mark.series))
    for mark in grey_first:
        if mark.low < mark.high:
            x, low, high = layout.across.at(mark.across), layout.up.at(mark.low), layout.up.at(mark.high)
            kind = f"error {colour_class(chart.number(mark.series))}"
            yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
    for mark in grey_first:
        x, y = layout.place(mark)
        touch = f'<circle class="touch" cx="{x:.1f}" cy="{y:.1f}" r="11"/>'
        drawn = marker(chart.number(mark.series), x, y, layout.radius, hollow=mark.hollow)
        yield f"<g><title>{escaped(mark.tip)}</title>{touch}{drawn}</g>"


def _labels(layout: ChartLayout) -> Iterator[str]:
    for mark, (text, label) in layout.named():
        if label is not None:
            x, y = layout.place(mark)
            if label.far:
                yield f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{label.x:.1f}" y2="{label.y:.1f}"/>'
            yield text_at(text, label.x, label.y, label.anchor)
