"""A report as files, and as the object of `--json`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsr.bench.kit import files
from dsr.bench.report.markdown import markdown
from dsr.bench.report.page import html
from dsr.bench.report.report import BenchReport
from dsr.bench.report.table import FamilyTable
from dsr.ui.charts.chart_svg import chart_file
from runtime.base.errors import UsageError

# The last line of each file: a comment in HTML, SVG and Markdown. A report may only take the place of such a file.
MARK = "<!-- dsr bench report -->\n"


def write(report: BenchReport, page: Path | None, text: Path | None) -> tuple[Path, ...]:
    """Write the HTML page, and the Markdown with its pictures; returns the files.

    Raises UsageError if both are the same file, or if a file is there that is no report; DoesNotFit, DsrError.
    """
    if page is not None and page == text:
        raise UsageError(f"{page}: cannot be the page and its Markdown", hint="give them two names")
    contents: dict[Path, str] = {}
    if page is not None:
        contents[page] = html(report)
    if text is not None:
        drawn = {chart.name: chart for chart in report.drawn}
        pictures = {name: text.with_name(f"{text.stem}-{name}.svg") for name in drawn}
        contents |= {path: chart_file(drawn[name]) for name, path in pictures.items()}
        contents[text] = markdown(report, {name: path.name for name, path in pictures.items()})
    for path in contents:
        _check_ours(path)
    for path, content in contents.items():
        files.write(path, content + MARK)
    return tuple(contents)


def _check_ours(path: Path) -> None:
    """Raise UsageError for a file that a report would replace, and that none made."""
    try:
        content = path.read_bytes()
    except OSError:
        return  # there is none, or writing it will tell
    if content and not content.endswith(MARK.encode()):
        raise UsageError(f"{path}: this file is not a report of dsr, so it stays", hint="name another file with --out")


def as_json(report: BenchReport) -> dict[str, Any]:
    """The tables by column, the marks of the charts, and the sentences of the report."""
    return {
        "title": report.title,
        "warnings": list(report.warnings),
        "tables": [_table(table) for table in report.tables],
        "charts": [
            {"name": chart.name, "title": chart.title, "points": [asdict(mark) for mark in chart.marks]}
            for chart in report.charts
        ],
        "machine": list(report.machine),
        "disturbed": list(report.disturbed),
        "commands": list(report.commands),
    }


def _table(table: FamilyTable) -> dict[str, Any]:
    names = [
        {"model": member.file.model, "name": member.short, "reference": member.reference} for member in table.members
    ]
    columns = [asdict(column) for column in table.columns]
    return {"heading": table.heading, "conditions": table.conditions, "files": names, "columns": columns}
