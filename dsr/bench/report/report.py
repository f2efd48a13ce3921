"""A report as data, ready to be written as HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dsr.bench.report.charts import charts
from dsr.bench.report.families import families
from dsr.bench.report.files import ReportInput, select
from dsr.bench.report.method import commands, disturbed, machine, methods, warnings
from dsr.bench.report.table import DOUBTFUL, FamilyTable, tables
from dsr.store.measurement import Measurement
from dsr.store.predictions import PredictedRun
from dsr.ui.charts.chart import Chart
from runtime.base.types import counted

_LEGEND = {
    "KLD": "KLD: mean Kullback-Leibler divergence of the next token's probabilities, in nats; 0 is no loss.",
    "same top token": "Same top token: how often the file and its reference find the same token most likely.",
    "right": "Right: answers to the suite's questions, with Wilson's 95 % interval.",
    "memory": "Memory: the peak of the process.",
}


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All texts are ready for the reader. `measured`: how much was measured, and when. `legend`: the columns explained.
    `methods`: (kind of bench, its parameters). `commands` repeat the measurements."""

    title: str
    measured: str
    warnings: tuple[str, ...]
    tables: tuple[FamilyTable, ...]
    legend: tuple[str, ...]
    charts: tuple[Chart, ...]
    machine: tuple[str, ...]
    disturbed: tuple[str, ...]
    methods: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]

    @property
    def drawn(self) -> tuple[Chart, ...]:
        return tuple(chart for chart in self.charts if chart.marks)

    @property
    def missing(self) -> tuple[Chart, ...]:
        """The charts without measurements."""
        return tuple(chart for chart in self.charts if not chart.marks)


def build_report(rows: Sequence[Measurement], runs: Sequence[PredictedRun], models: Sequence[str] = ()) -> BenchReport:
    """The report for all models, or for those named. Raises NotFound if nothing was measured."""
    data = select(rows, runs, models)
    related = families(data.files)
    made = tables(related)
    return BenchReport(
        title=_title(data),
        measured=_measured(data.rows),
        warnings=warnings(data.rows),
        tables=made,
        legend=_legend(made),
        charts=charts(data, related),
        machine=machine(data),
        disturbed=disturbed(data),
        methods=methods(data.rows),
        commands=commands(data),
    )


def _title(data: ReportInput) -> str:
    if len(data.files) == 1:
        return f"{data.files[0].name}, measured"
    return f"{len(data.files)} model files, measured"


def _measured(rows: Sequence[Measurement]) -> str:
    """'14 measurements of 3 files, 2026-09-21.'"""
    days = sorted({day for row in rows if (day := _day(row.at))})
    when = "" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    files = counted(len({row.digest for row in rows}), "file")
    return f"{counted(len(rows), 'measurement')} of {files}{f', {when}' if when else ''}."


def _day(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return ""


def _legend(made: Sequence[FamilyTable]) -> tuple[str, ...]:
    """Returns the explanations of the columns of these tables, each once."""
    columns = [column for table in made for column in table.columns]
    titles = {column.title for column in columns}
    cells = [cell for column in columns for cell in column.cells]
    found = [meaning for title, meaning in _LEGEND.items() if title in titles]
    if any("±" in cell.text for cell in cells):
        found.append("The number after ± is the standard error.")
    if any(cell.doubtful for cell in cells):
        found.append(f"{DOUBTFUL}: other work disturbed the measurement, see The machine.")
    return tuple(found)
