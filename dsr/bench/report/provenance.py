"""How a report's measurements were made, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from dsr.bench.report.gather import Gathered
from dsr.store.measurement import Kind, Measurement, Parameter

KINDS: tuple[Kind, ...] = ("speed", "quality", "reason", "experts")
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


def commands(gathered: Gathered) -> tuple[str, ...]:
    """What measures it all again, and what writes this report."""
    models: dict[tuple[str, ...], dict[str, None]] = {}
    whole: dict[str, None] = {}
    for kind in KINDS:
        for file in gathered.files:
            for row in file.of(kind):
                if row.command:
                    whole[row.command] = None
                else:
                    models.setdefault((kind, *_options(row)), {})[file.model] = None
    told = [
        shlex.join(["dsr", "bench", kind, *group, *options])
        for (kind, *options), found in models.items()
        for group in ([[model] for model in found] if kind in _ONE_MODEL else [list(found)])
    ]
    return (*whole, *told, "dsr bench report --open")


def _options(row: Measurement) -> list[str]:
    """Those that decide what is measured, as far as the row tells them."""
    return [
        word
        for name, option, usual in _OPTIONS.get(row.kind, ())
        if (value := row.parameters.get(name)) is not None and value != usual
        for word in (option, str(value))
    ]


def method(rows: Sequence[Measurement], kind: Kind) -> str:
    """The parameters of all rows of a kind, where they have few values."""
    of_kind = [row for row in rows if row.kind == kind]
    told = []
    for name in sorted({name for row in of_kind for name in row.parameters} - set(_IN_TESTS)):
        values = dict.fromkeys(_value(name, row) for row in of_kind if row.parameters.get(name) is not None)
        if 1 <= len(values) <= _VALUES:
            told.append(f"{name.replace('_', ' ')} {', '.join(values)}")
    return "; ".join(told)


def _value(name: str, row: Measurement) -> str:
    value = str(row.parameters[name])
    return value[:_DIGEST] if name.endswith("digest") else value
