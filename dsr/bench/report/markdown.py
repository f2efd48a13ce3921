"""A sheet as Markdown: the same table and sentences, pictures as files beside it, figures of charts as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dsr.bench.report.sheet import Sheet
from dsr.bench.report.table import Table
from dsr.ui.charts.chart import Chart

# What could begin something else than text in a cell or a line.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def markdown(sheet: Sheet, pictures: Mapping[str, str]) -> str:
    """`pictures`: the address of each chart's picture by the chart's name."""
    parts = [f"# {_text(sheet.title)}", _text(sheet.measured)]
    parts += [f"**{_text(warning)}**" for warning in sheet.warnings]
    for table in sheet.tables:
        parts += [f"## {_text(table.heading)}", _text(table.conditions), _of_files(table)]
    parts.append("\n".join(f"- {_text(line)}" for line in sheet.legend))
    for chart in sheet.drawn:
        parts += [f"## {_text(chart.title)}", *_chart(chart, pictures)]
    if sheet.missing:
        lines = [f"- {_text(chart.title)}: `{chart.command.replace('`', ' ')}`" for chart in sheet.missing]
        parts += ["## Not drawn yet", "\n".join(lines)]
    parts += ["## The machine", "\n".join(f"- {_text(line)}" for line in sheet.machine)]
    if sheet.disturbed:
        parts += ["What disturbed its speeds:", "\n".join(f"- {_text(line)}" for line in sheet.disturbed)]
    parts += ["## How to repeat it", "\n".join(f"    {line}" for line in sheet.commands)]
    parts += ["\n".join(f"- {kind}: {_text(told)}" for kind, told in sheet.methods)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _of_files(table: Table) -> str:
    names = [f"{member.short} (reference)" if member.reference else member.short for member in table.members]
    cells = [
        [f"{cell.marked} ({cell.otherwise})" if cell.otherwise else cell.marked for cell in column.cells]
        for column in table.columns
    ]
    return _table(["file", *(column.title for column in table.columns)], list(zip(names, *cells, strict=True)))


def _chart(chart: Chart, pictures: Mapping[str, str]) -> list[str]:
    image = f"![{_text(chart.title)}](<{pictures[chart.name]}>)"
    return [image, _text(chart.lead), _table(*chart.table)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = [":--", *("--:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [_texts(heads), rule, *map(_texts, rows)])


def _texts(cells: Sequence[str]) -> list[str]:
    return [_text(cell) for cell in cells]


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
