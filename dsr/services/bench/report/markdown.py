"""A sheet as Markdown: the same table and sentences, pictures as files beside it, figures of charts as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dsr.services.bench.report.drawing import Chart
from dsr.services.bench.report.sheet import Sheet

# What could begin something else than text in a cell or a line.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def markdown(sheet: Sheet, pictures: Mapping[str, str]) -> str:
    """`pictures`: the address of each chart's picture by the chart's name."""
    parts = [f"# {_text(sheet.title)}", _text(sheet.measured)]
    parts += [f"**{_text(warning)}**" for warning in sheet.warnings]
    parts += [table(sheet), "\n".join(f"- {_text(line)}" for line in sheet.legend)]
    for chart in sheet.charts:
        parts += [f"## {_text(chart.title)}", *_chart(chart, pictures)]
    parts += ["## The machine", "\n".join(f"- {_text(line)}" for line in sheet.machine)]
    if sheet.disturbed:
        parts += ["What disturbed its speeds:", "\n".join(f"- {_text(line)}" for line in sheet.disturbed)]
    parts += ["## How to repeat it", "\n".join(f"    {line}" for line in sheet.commands)]
    parts += ["\n".join(f"- {kind}: {_text(told)}" for kind, told in sheet.methods)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(sheet: Sheet) -> str:
    heads = [f"{column.title} ({column.about})" if column.about else column.title for column in sheet.columns]
    cells = [
        [f"{cell.marked} ({cell.about})" if cell.about else cell.marked for cell in column.cells]
        for column in sheet.columns
    ]
    return _table(heads, list(zip(*cells, strict=True)))


def _chart(chart: Chart, pictures: Mapping[str, str]) -> list[str]:
    if not chart.marks:
        return [f"Nothing was measured for this yet: `{chart.command.replace('`', ' ')}`"]
    rows = [(mark.tip,) for mark in chart.marks]
    image = f"![{_text(chart.title)}](<{pictures[chart.name]}>)"
    return [image, _text(chart.lead), "\n".join(f"- {_text(tip)}" for (tip,) in rows)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, [":--", *("--:" for _ in heads[1:])]]
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in [[_text(head) for head in heads], lines[1], *map(_texts, rows)]
    )


def _texts(cells: Sequence[str]) -> list[str]:
    return [_text(cell) for cell in cells]


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
