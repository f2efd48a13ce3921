"""Everything a report says, ready to be written in HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dsr.bench.report.charts import charts
from dsr.bench.report.families import families
from dsr.bench.report.gather import Gathered, gather
from dsr.bench.report.machine import disturbed, machine, warnings
from dsr.bench.report.provenance import KINDS, commands, method
from dsr.bench.report.table import DOUBTFUL, Table, tables
from dsr.store.measurement import Measurement
from dsr.store.predictions import PredictedRun
from dsr.ui.charts.chart import Chart
from runtime.base.words import counted

_LEGEND = {
    "KLD": "KLD: mean Kullback-Leibler divergence of the next token's probabilities, in nats; 0 is no loss.",
    "same top token": "Same top token: how often both files find the same token most likely.",
    "right": "Right: answers to the suite's questions, with Wilson's 95 % interval.",
    "memory": "Memory: the most the process took.",
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """`warnings` are what a reader must know before comparing, `machine` the conditions in sentences, `disturbed` what
    was noticed, `methods` (kind, how it was measured), `commands` what makes it again."""

    title: str
    measured: str
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]
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
        """Charts that nothing was measured for."""
        return tuple(chart for chart in self.charts if not chart.marks)


def sheet(rows: Sequence[Measurement], runs: Sequence[PredictedRun], models: Sequence[str] = ()) -> Sheet:
    """Raises NotFound where nothing was measured."""
    gathered = gather(rows, runs, models)
    found = gathered.rows
    related = families(gathered.files)
    made = tables(related)
    return Sheet(
        title=_title(gathered),
        measured=_measured(found),
        warnings=warnings(found),
        tables=made,
        legend=_legend(made),
        charts=charts(gathered, related),
        machine=machine(gathered),
        disturbed=disturbed(gathered),
        methods=tuple((kind, told) for kind in KINDS if (told := method(found, kind))),
        commands=commands(gathered),
    )


def _title(gathered: Gathered) -> str:
    if len(gathered.files) == 1:
        return f"{gathered.files[0].name}, measured"
    return f"{len(gathered.files)} model files, measured"


def _measured(rows: Sequence[Measurement]) -> str:
    """'22 November 2026'-like, in numbers, and how much it was."""
    days = sorted({day for row in rows if (day := _day(row.at))})
    when = "" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    files = counted(len({row.digest for row in rows}), "file")
    return f"{counted(len(rows), 'measurement')} of {files}{f', {when}' if when else ''}."


def _day(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return ""


def _legend(made: Sequence[Table]) -> tuple[str, ...]:
    """Of the columns that are there, each once."""
    columns = [column for table in made for column in table.columns]
    titles = {column.title for column in columns}
    cells = [cell for column in columns for cell in column.cells]
    found = [told for title, told in _LEGEND.items() if title in titles]
    if any("±" in cell.text for cell in cells):
        found.append("After ± stands the standard error.")
    if any(cell.doubtful for cell in cells):
        found.append(f"{DOUBTFUL}: something else disturbed the measurement, see The machine.")
    return tuple(found)
