"""SVG elements and the style that all pictures share. Colours are CSS variables, with values for light and dark."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from dsr.ui.charts.chart import COLOURS
from dsr.ui.charts.labels import LETTER
from dsr.ui.charts.layout import Screen
from dsr.ui.console import printable
from runtime.base.errors import UsageError

# Contrast of at least 4.5 : 1 on the background of the theme.
_LIGHT = ("#0b62a4", "#b3400e", "#14724f", "#86358f", "#75590a", "#a1234f")
_DARK = ("#79b8ff", "#ffa26b", "#5fd3a5", "#dca3ea", "#e6c65c", "#ff9ab5")
_LIGHT_PAGE = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "grid": "#e6e9ed",
    "faint": "#8b949e",
    "panel": "#f5f7f9",
}
_DARK_PAGE = {
    "paper": "#12161b",
    "ink": "#e8ebee",
    "muted": "#a3acb6",
    "grid": "#262d35",
    "faint": "#7d8590",
    "panel": "#1b2128",
}
# Corners of a series' marker, and the angle of the first corner in degrees. The first series has a circle.
_CORNERS = ((4, 45), (3, -90), (4, 0), (3, 90), (5, -90))
_TITLE = 1.4  # size of a title as a multiple of other letters
_MARGIN = 12  # units left and right of headings
_FILE_SCALE = 1.3  # pixels of a unit in a file of its own, where letters are 14 pixels high

STYLE = re.sub(
    r"\s+",
    " ",
    """
    .chart { font-family: system-ui, sans-serif }
    .chart text { fill: var(--ink) }
    .chart .label { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round }
    .chart .tick, .chart .axis { fill: var(--muted) }
    .grid { stroke: var(--grid); stroke-width: 1 }
    .same { stroke: var(--muted); stroke-width: 1.5; stroke-dasharray: 6 5 }
    .lead { stroke: var(--muted); stroke-width: 0.75 }
    .error { stroke: var(--series); stroke-width: 1.5; opacity: 0.35 }
    .join { fill: none; stroke: var(--series); stroke-width: 2; opacity: 0.7 }
    .mark { fill: var(--series); stroke: var(--series); stroke-width: 1.5 }
    .hollow { fill: var(--paper) }
    .touch { fill: transparent }
    .colour-none { --series: var(--faint) }
    .join.colour-none { stroke-width: 1 }
    """,
).strip() + "".join(f" .colour-{number} {{ --series: var(--series-{number}) }}" for number in range(COLOURS))
_HEADING = f" .chart .heading {{ font-weight: 600; font-size: {_TITLE}em }} .chart .note {{ fill: var(--muted) }}"


def check_path(path: Path) -> None:
    """Raises UsageError if a picture cannot be written under this name. Call it before a long measurement."""
    if path.suffix.lower() != ".svg":
        raise UsageError(f"{path}: a plot is written as SVG only", hint="--plot FILE.svg")


def colours() -> str:
    """The CSS variables of the light and the dark theme."""
    light, dark = (
        "; ".join(
            [f"--{name}: {value}" for name, value in page.items()]
            + [f"--series-{number}: {value}" for number, value in enumerate(series)]
        )
        for page, series in ((_LIGHT_PAGE, _LIGHT), (_DARK_PAGE, _DARK))
    )
    return f":root {{ color-scheme: light dark; {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def file_style() -> str:
    """The style of a picture that is a file of its own."""
    return f"{colours()} svg {{ background: var(--paper) }} {STYLE}"


def plot_style() -> str:
    """The style of a file with a heading."""
    return file_style() + _HEADING


def document(
    parts: Sequence[str], *, name: str, screen: Screen, high: float, title: str, text: str, style: str = ""
) -> str:
    """An <svg> element of `high` units with a title and a description for screen readers.

    With a `style` it can be a file of its own. `name` is for the addresses of its parts.
    """
    pixels = f'width="{_FILE_SCALE * screen.across:.0f}" height="{_FILE_SCALE * high:.0f}" ' if style else ""
    head = [
        f'<svg class="chart {screen.name}" xmlns="http://www.w3.org/2000/svg" role="img" {pixels}'
        f'viewBox="0 0 {screen.across} {high:.0f}" font-size="{screen.letters}" '
        f'aria-labelledby="{name}-title {name}-text">',
        f'<title id="{name}-title">{escaped(title)}</title>',
        f'<desc id="{name}-text">{escaped(text)}</desc>',
        *([f"<style>{style}</style>"] if style else []),
    ]
    return "\n".join([*head, *parts, "</svg>"])


def heading(title: str, note: str, screen: Screen) -> tuple[list[str], float]:
    """The lines of a title and a note, and the height of both; "" takes no room."""
    y, parts = 0.5 * screen.letters, []
    for text, kind, size in ((title, "heading", _TITLE * screen.letters), (note, "note", screen.letters)):
        for line in textwrap.wrap(text, int((screen.across - 2 * _MARGIN) / (size * LETTER))):
            parts.append(text_at(line, _MARGIN, y + 0.75 * size, "start", kind))
            y += 1.5 * size
    return parts, y + screen.letters if parts else 0.0


def escaped(text: str) -> str:
    """The text for an element of XML, without control characters, which XML does not allow."""
    return html.escape(printable(text))


def text_at(text: str, x: float, y: float, anchor: str, kind: str = "label") -> str:
    """A text whose middle line is at `y`. `anchor`: start, middle or end of the text is at `x`."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'dominant-baseline="central">{escaped(text)}</text>'
    )


def colour_class(number: int) -> str:
    """The CSS class of series `number`; all series after the last colour are grey."""
    return f"colour-{number}" if number < COLOURS else "colour-none"


def marker(number: int, x: float, y: float, radius: float, *, hollow: bool = False) -> str:
    """The marker of series `number`: each series has a colour and a shape of its own."""
    kind = f"mark {colour_class(number)}{' hollow' if hollow else ''}"
    if not 0 < number < COLOURS:
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'
    corners, turned = _CORNERS[number - 1]
    angles = [math.radians(turned + 360 * corner / corners) for corner in range(corners)]
    radius *= 1.25  # a polygon of this radius has about the area of the circle
    points = " ".join(f"{x + radius * math.cos(angle):.1f},{y + radius * math.sin(angle):.1f}" for angle in angles)
    return f'<polygon class="{kind}" points="{points}"/>'
