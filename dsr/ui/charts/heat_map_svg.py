"""Heat maps as one SVG file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from dsr.ui.charts.heat_map import LEVELS, HeatMap, level
from dsr.ui.charts.labels import width
from dsr.ui.charts.layout import BROAD
from dsr.ui.charts.svg import document, heading, plot_style, text_at

# From dark to light; also told apart on a dark page and in grey.
_COLOURS = ("#160b39", "#320a5e", "#57106e", "#8a226a", "#bc3754", "#e45a31", "#f98e09", "#f9cb35", "#fcffa4")
_STYLE = " .swatch { stroke: var(--faint); stroke-width: 0.5 } .never { fill: var(--grid) }" + "".join(
    f" .level-{number} {{ fill: {colour} }}" for number, colour in enumerate(_COLOURS)
)
_LETTERS = BROAD.letters
_GAP = 24.0  # units between two maps
_HIGHEST_ROW, _HIGHEST_MAP = 22.0, 420.0
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # between numbered columns


def heat_maps_file(maps: Sequence[HeatMap], *, title: str, note: str, columns: str) -> str:
    """Returns the content of an SVG file: two maps side by side, and the legend of the colours.

    `columns` names the columns of all maps. Colours are the levels of `dsr.ui.charts.heat_map`.
    """
    abreast = min(len(maps), 2)
    wide = (BROAD.across - _GAP * (abreast - 1)) / abreast
    head, y = heading(title, note, BROAD)
    parts = [*head, *_legend(y)]
    y += 2.5 * _LETTERS
    for first in range(0, len(maps), abreast):
        row = maps[first : first + abreast]
        for place, heat_map in enumerate(row):
            parts += _map(heat_map, place * (wide + _GAP), y, wide, columns)
        y += max(_high(heat_map) for heat_map in row) + 5.5 * _LETTERS
    text = f"{len(maps)} heat maps: {', '.join(heat_map.name for heat_map in maps)}."
    style = plot_style() + _STYLE
    return document(parts, name="heat-maps", screen=BROAD, high=y, title=title, text=text, style=style) + "\n"


def _legend(y: float) -> Iterator[str]:
    x = 12.0
    for number, name in [*enumerate(LEVELS), (None, "never")]:
        kind = "never" if number is None else f"level-{number}"
        yield f'<rect class="swatch {kind}" x="{x:.1f}" y="{y:.1f}" width="{_LETTERS}" height="{_LETTERS}"/>'
        yield text_at(name, x + 1.4 * _LETTERS, y + _LETTERS / 2, "start")
        x += 2.6 * _LETTERS + width(name, _LETTERS)


def _high(heat_map: HeatMap) -> float:
    """The height of the cells of a map."""
    rows = len(heat_map.rows)
    return min(rows * _HIGHEST_ROW, max(_HIGHEST_MAP, 2.0 * rows))


def _map(heat_map: HeatMap, x: float, y: float, wide: float, columns: str) -> Iterator[str]:
    """A title, row labels, cells, column numbers; `x` and `y` are its upper left corner."""
    left = x + max(width(label, _LETTERS) for label, _ in heat_map.rows) + _LETTERS
    right = x + wide - 12
    top = y + 1.6 * _LETTERS
    high = _high(heat_map) / len(heat_map.rows)
    cell = (right - left) / heat_map.columns
    yield text_at(heat_map.name, (left + right) / 2, y + _LETTERS / 2, "middle")
    every = -(-1.2 * _LETTERS // high)
    for number, (label, _) in enumerate(heat_map.rows):
        if number % every == 0:
            yield text_at(label, left - _LETTERS / 2, top + (number + 0.5) * high, "end", "tick")
    yield f'<g transform="translate({left:.1f} {top:.1f}) scale({cell:.4f} {high:.4f})" shape-rendering="crispEdges">'
    yield f'<rect class="never" width="{heat_map.columns}" height="{len(heat_map.rows)}"/>'
    yield from _cells(heat_map)
    yield "</g>"
    bottom = top + _high(heat_map)
    step = next((step for step in _STEPS if step * cell >= 2.6 * _LETTERS), _STEPS[-1])
    for number in range(0, heat_map.columns, step):
        yield text_at(str(number), left + (number + 0.5) * cell, bottom + _LETTERS, "middle", "tick")
    yield text_at(columns, (left + right) / 2, bottom + 2.3 * _LETTERS, "middle", "axis")


def _cells(heat_map: HeatMap) -> Iterator[str]:
    """A path for each level, in units of a cell: equal neighbours in a row are one rectangle."""
    paths: dict[int, list[str]] = {}
    for y, (_, values) in enumerate(heat_map.rows):
        x = 0
        for number, same in groupby(level(value) if value > 0 else None for value in values):
            count = len(list(same))
            if number is not None:
                paths.setdefault(number, []).append(f"M{x} {y}h{count}v1h-{count}z")
            x += count
    for number, path in sorted(paths.items()):
        yield f'<path class="level-{number}" d="{"".join(path)}"/>'
