"""How the measurements of a report were made: the machine, disturbances, parameters, and the commands."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence

from dsr.bench.report.files import ReportInput
from dsr.store import predictions
from dsr.store.measurement import Kind, Measurement, Parameter
from runtime.base.types import ByteCount, counted

_KINDS: tuple[Kind, ...] = ("speed", "quality", "reason", "experts")
_IN_TESTS = ("prompt", "generated", "depth", "votes")  # parameters that are in the name of a test
_ONE_MODEL = ("reason", "experts")  # benches that take one model
_DIGEST = 12  # characters of a digest
_VALUES = 4  # the most values of a parameter that are shown
# (parameter, option, default) of the options that decide what is measured.
_OPTIONS: Mapping[Kind, tuple[tuple[str, str, Parameter], ...]] = {
    "quality": (
        ("against", "--against", None),
        ("text", "--text", "builtin"),
        ("context", "--ctx-size", 512),
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


def warnings(rows: Sequence[Measurement]) -> tuple[str, ...]:
    """Sentences for a reader who is about to compare speeds."""
    machines = {(row.conditions.processor, row.conditions.cores, row.conditions.memory) for row in rows}
    engines = {row.conditions.engine for row in rows}
    sentences = []
    if len(machines) > 1:
        sentences.append(f"Measured on {len(machines)} machines: do not compare their speeds.")
    if len(engines) > 1:
        sentences.append(f"Measured with engines {' and '.join(sorted(engines))}: do not compare their speeds.")
    return tuple(sentences)


def machine(data: ReportInput) -> tuple[str, ...]:
    """Sentences about the machines, their other work, and the accuracy of predictions."""
    lines = dict.fromkeys(
        f"{each.processor}, {counted(each.cores, 'core')}, {ByteCount(each.memory)} of memory; "
        f"dsr {each.dsr}, llama-cpp-python {each.engine}"
        for each in (row.conditions for row in data.rows)
    )
    loads = [min(max(row.conditions.load, 0.0), 1.0) for row in data.rows]
    load = f"Other work took {statistics.fmean(loads):.0%} of the processor on average, at most {max(loads):.0%}."
    errors = predictions.describe(data.runs)
    return (*lines, load, *([f"Predictions: {errors}."] if errors else []))


def disturbed(data: ReportInput) -> tuple[str, ...]:
    """Returns a line for each file with disturbed speeds: the reason of its most disturbed measurement."""
    lines = []
    for file in data.files:
        found = [row for row in file.of("speed") if row.conditions.disturbed]
        if found:
            worst = max(found, key=lambda row: row.conditions.load)
            of = f"{len(found)} of {counted(len(file.of('speed')), 'measurement')} of speed"
            lines.append(f"{file.name}, {of}: {worst.conditions.disturbed} ({worst.test})")
    return tuple(lines)


def commands(data: ReportInput) -> tuple[str, ...]:
    """The commands that repeat all measurements and write this report."""
    models: dict[tuple[str, ...], dict[str, None]] = {}
    one_for_all: dict[str, None] = {}
    for kind in _KINDS:
        for file in data.files:
            for row in file.of(kind):
                if row.command:
                    one_for_all[row.command] = None
                else:
                    models.setdefault((kind, *_options(row)), {})[file.model] = None
    others = [
        shlex.join(["dsr", "bench", kind, *group, *options])
        for (kind, *options), found in models.items()
        for group in ([[model] for model in found] if kind in _ONE_MODEL else [list(found)])
    ]
    return (*one_for_all, *others, "dsr bench report --open")


def _options(row: Measurement) -> list[str]:
    """The options of the command that measured this row, as far as the row has them."""
    return [
        word
        for name, option, usual in _OPTIONS.get(row.kind, ())
        if (value := row.parameters.get(name)) is not None and value != usual
        for word in (option, str(value))
    ]


def methods(rows: Sequence[Measurement]) -> tuple[tuple[str, str], ...]:
    """For each kind of bench, its name and its parameters in words."""
    return tuple((kind, words) for kind in _KINDS if (words := _method(rows, kind)))


def _method(rows: Sequence[Measurement], kind: Kind) -> str:
    """The parameters of all rows of a kind that have few values."""
    of_kind = [row for row in rows if row.kind == kind]
    words = []
    for name in sorted({name for row in of_kind for name in row.parameters} - set(_IN_TESTS)):
        values = dict.fromkeys(_value(name, row) for row in of_kind if row.parameters.get(name) is not None)
        if 1 <= len(values) <= _VALUES:
            words.append(f"{name.replace('_', ' ')} {', '.join(values)}")
    return "; ".join(words)


def _value(name: str, row: Measurement) -> str:
    value = str(row.parameters[name])
    return value[:_DIGEST] if name.endswith("digest") else value
