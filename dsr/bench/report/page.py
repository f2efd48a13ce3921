"""A report as one HTML page without scripts and without network; names are always escaped."""

from __future__ import annotations

from importlib import resources

from dsr.bench.report.report import BenchReport
from dsr.bench.report.table import DOUBTFUL
from dsr.ui.charts.chart_svg import chart_svg, wide_screen
from dsr.ui.charts.layout import PHONE
from dsr.ui.charts.svg import STYLE, colours


def html(report: BenchReport) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("dsr.bench.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=report,
        dagger=DOUBTFUL,
        colours=Markup(colours()),
        picture_style=Markup(STYLE),
        svgs=lambda chart: Markup("\n".join(chart_svg(chart, screen) for screen in (PHONE, wide_screen(chart)))),
    )
