"""Everything a report says, ready to be written in HTML or Markdown."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dsr import predictions
from dsr.predictions import Run
from dsr.records import Kind, Parameter, Row
from dsr.services.bench.report.charts import charts
from dsr.services.bench.report.drawing import Chart
from dsr.services.bench.report.gathering import Gathered, gather
from dsr.services.bench.report.table import DOUBTFUL, Column, columns
from runtime.types import ByteCount
from runtime.words import counted

_KINDS: tuple[Kind, ...] = ("speed", "quality", "reason", "experts")
_IN_TESTS = ("prompt", "generated", "depth", "votes")  # parameters that the names of tests say
_ONE_MODEL = ("reason", "experts")  # commands that take no more
_DIGEST = 12  # characters of one
_VALUES = 4  # of a parameter that are told
# Parameters that an option gave, and what it is without it.
_OPTIONS: Mapping[Kind, tuple[tuple[str, str, Parameter], ...]] = {
    "quality": (
        ("against", "--against", None),
        ("text", "--text", "builtin"),
        ("context", "--ctx", 512),
        ("chunks", "--chunks", None),
    ),
    "reason": (
        ("suite", "--suite", "nano"),
        ("problems", "--limit", None),
        ("samples", "--samples", 8),
        ("temperature", "--temp", None),
        ("seed", "--seed", 0),
    ),
    "experts": (("suite", "--suite", "nano"), ("problems", "--limit", None), ("max_tokens", "--max-tokens", 2048)),
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """`warnings` are what a reader must know before comparing, `machine` the conditions in sentences, `disturbed` what
    was noticed, `methods` (kind, how it was measured), `commands` what makes it again."""

    title: str
    measured: str
    warnings: tuple[str, ...]
    columns: tuple[Column, ...]
    legend: tuple[str, ...]
    charts: tuple[Chart, ...]
    machine: tuple[str, ...]
    disturbed: tuple[str, ...]
    methods: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]


def sheet(rows: Sequence[Row], runs: Sequence[Run], models: Sequence[str] = ()) -> Sheet:
    """Raises NotFound where nothing was measured."""
    gathered = gather(rows, runs, models)
    found = gathered.rows
    made = columns(gathered.files)
    return Sheet(
        title=_title(gathered),
        measured=_measured(found),
        warnings=_warnings(found),
        columns=made,
        legend=_legend(made),
        charts=charts(gathered),
        machine=_machine(gathered),
        disturbed=_disturbed(gathered),
        methods=tuple((kind, told) for kind in _KINDS if (told := _method(found, kind))),
        commands=_commands(gathered),
    )


def _title(gathered: Gathered) -> str:
    if len(gathered.files) == 1:
        return f"{gathered.files[0].name}, measured"
    return f"{len(gathered.files)} model files, measured"


def _measured(rows: Sequence[Row]) -> str:
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


def _legend(made: Sequence[Column]) -> tuple[str, ...]:
    told = {
        "KLD": "KLD: mean Kullback-Leibler divergence of the next token's probabilities, in nats; 0 is no loss.",
        "same top token": "Same top token: how often both files find the same token most likely.",
        "right": "Right: answers to the suite's questions, with Wilson's 95 % interval, of so many.",
        "memory": "Memory: the most the process took.",
    }
    found = [told[column.title] for column in made if column.title in told]
    if any("±" in cell.text for column in made for cell in column.cells):
        found.append("After ± stands the standard error.")
    if any(cell.doubtful for column in made for cell in column.cells):
        found.append(f"{DOUBTFUL}: something else disturbed the measurement, see below.")
    return tuple(found)


def _warnings(rows: Sequence[Row]) -> tuple[str, ...]:
    machines = {(row.conditions.processor, row.conditions.cores, row.conditions.memory) for row in rows}
    engines = {row.conditions.engine for row in rows}
    told = []
    if len(machines) > 1:
        told.append(f"Measured on {len(machines)} machines: speeds are not to be compared.")
    if len(engines) > 1:
        told.append(f"Measured with engines {' and '.join(sorted(engines))}: speeds are not to be compared.")
    return tuple(told)


def _machine(gathered: Gathered) -> tuple[str, ...]:
    lines = dict.fromkeys(
        f"{each.processor}, {counted(each.cores, 'core')}, {ByteCount(each.memory)} of memory; "
        f"dsr {each.dsr}, llama-cpp-python {each.engine}"
        for each in (row.conditions for row in gathered.rows)
    )
    loads = [min(max(row.conditions.load, 0.0), 1.0) for row in gathered.rows]
    load = f"Other work took {statistics.fmean(loads):.0%} of the processor meanwhile, at most {max(loads):.0%}."
    forecast = predictions.in_words(gathered.runs)
    return (*lines, load, *([f"Forecasts {forecast}."] if forecast else []))


def _disturbed(gathered: Gathered) -> tuple[str, ...]:
    """A line for each file: what was noticed where other work took most. It changes no answer, only speeds."""
    told = []
    for file in gathered.files:
        found = [row for row in file.of("speed") if row.conditions.disturbed]
        if found:
            worst = max(found, key=lambda row: row.conditions.load)
            of = f"{len(found)} of {counted(len(file.of('speed')), 'measurement')} of speed"
            told.append(f"{file.name}, {of}: {worst.conditions.disturbed} ({worst.test})")
    return tuple(told)


def _method(rows: Sequence[Row], kind: Kind) -> str:
    """The parameters of all rows of a kind, where they have few values."""
    of_kind = [row for row in rows if row.kind == kind]
    told = []
    for name in sorted({name for row in of_kind for name in row.parameters} - set(_IN_TESTS)):
        values = dict.fromkeys(_value(name, row) for row in of_kind if row.parameters.get(name) is not None)
        if 1 <= len(values) <= _VALUES:
            told.append(f"{name.replace('_', ' ')} {', '.join(values)}")
    return "; ".join(told)


def _value(name: str, row: Row) -> str:
    value = str(row.parameters[name])
    return value[:_DIGEST] if name.endswith("digest") else value


def _commands(gathered: Gathered) -> tuple[str, ...]:
    """What measures it all again, and what writes this report."""
    models: dict[tuple[str, ...], dict[str, None]] = {}
    for kind in _KINDS:
        for file in gathered.files:
            for row in file.of(kind):
                models.setdefault((kind, *_options(row)), {})[file.model] = None
    told = [
        shlex.join(["dsr", "bench", kind, *group, *options])
        for (kind, *options), found in models.items()
        for group in ([[model] for model in found] if kind in _ONE_MODEL else [list(found)])
    ]
    return (*told, "dsr bench report --open")


def _options(row: Row) -> list[str]:
    """Those that decide what is measured, as far as the row tells them."""
    return [
        word
        for name, option, usual in _OPTIONS.get(row.kind, ())
        if (value := row.parameters.get(name)) is not None and value != usual
        for word in (option, str(value))
    ]
