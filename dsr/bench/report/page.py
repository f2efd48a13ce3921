"""A sheet as one HTML page: nothing is fetched, nothing runs, and whatever a name holds is text."""

from __future__ import annotations

import re
from importlib import resources

from dsr.bench.report.chart import COLOURS, Chart
from dsr.bench.report.frame import BROAD, PHONE, WIDE, Screen
from dsr.bench.report.sheet import Sheet
from dsr.bench.report.svg import svg
from dsr.bench.report.table import DOUBTFUL

# Dark enough for 4.5 : 1 on the light background, light enough for it on the dark one.
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


def html(sheet: Sheet) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("dsr.bench.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        sheet=sheet,
        dagger=DOUBTFUL,
        colours=Markup(colours()),
        picture_style=Markup(PICTURE_STYLE),
        svgs=lambda chart: Markup("\n".join(svg(chart, screen) for screen in (PHONE, _wide(chart)))),
    )


def picture(chart: Chart) -> str:
    """The chart as a file of its own."""
    return svg(chart, _wide(chart), style=f"{colours()} svg {{ background: var(--paper) }} {PICTURE_STYLE}") + "\n"


def _wide(chart: Chart) -> Screen:
    return BROAD if chart.broad else WIDE


def colours() -> str:
    """Variables for light and dark."""
    light, dark = (
        "; ".join(
            [f"--{name}: {value}" for name, value in page.items()]
            + [f"--series-{number}: {value}" for number, value in enumerate(series)]
        )
        for page, series in ((_LIGHT_PAGE, _LIGHT), (_DARK_PAGE, _DARK))
    )
    return f":root {{ color-scheme: light dark; {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


PICTURE_STYLE = re.sub(
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
