"""A report as Markdown; its charts are SVG files in the same folder, and tables of their figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from dsr.bench.kit.table import Table, left, right
from dsr.bench.report.report import BenchReport
from dsr.bench.report.table import FamilyTable
from dsr.ui.charts.chart import Chart

# Characters with a meaning in Markdown.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def markdown(report: BenchReport, pictures: Mapping[str, str]) -> str:
    """Returns the Markdown text. `pictures`: the address of each chart's picture, by the chart's name."""
    parts = [f"# {_text(report.title)}", _text(report.measured)]
    parts += [f"**{_text(warning)}**" for warning in report.warnings]
    for table in report.tables:
        parts += [f"## {_text(table.heading)}", _text(table.conditions), _family_table(table)]
    parts.append("\n".join(f"- {_text(line)}" for line in report.legend))
    for chart in report.drawn:
        parts += [f"## {_text(chart.title)}", *_chart(chart, pictures)]
    if report.missing:
        lines = [f"- {_text(chart.title)}: `{chart.command.replace('`', ' ')}`" for chart in report.missing]
        parts += ["## Charts without measurements", "\n".join(lines)]
    parts += ["## The machine", "\n".join(f"- {_text(line)}" for line in report.machine)]
    if report.disturbed:
        parts += ["Disturbed speed measurements:", "\n".join(f"- {_text(line)}" for line in report.disturbed)]
    parts += ["## How to repeat it", "\n".join(f"    {line}" for line in report.commands)]
    parts += ["\n".join(f"- {kind}: {_text(parameters)}" for kind, parameters in report.methods)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _family_table(table: FamilyTable) -> str:
    names = [f"{member.short} (reference)" if member.reference else member.short for member in table.members]
    cells = [
        [f"{cell.marked} ({cell.otherwise})" if cell.otherwise else cell.marked for cell in column.cells]
        for column in table.columns
    ]
    return _table(["file", *(column.title for column in table.columns)], zip(names, *cells, strict=True))


def _chart(chart: Chart, pictures: Mapping[str, str]) -> list[str]:
    image = f"![{_text(chart.title)}](<{pictures[chart.name]}>)"
    return [image, _text(chart.lead), _table(*chart.table)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *others = map(_text, heads)
    made = Table.of((*left(first), *right(*others)), ([*map(_text, row)] for row in rows))
    return "\n".join(made.markdown())


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
