"""The history of measurements: each compared with the previous one of the same file, test and parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from dsr.bench.history import formats
from dsr.bench.history.compare import Ratio, ratios
from dsr.bench.kit.table import Table, left, right
from dsr.bench.speed import tables
from dsr.models.library import find
from dsr.store.measurement import Kind, Measurement
from dsr.store.measurements import Measurements, StoredMeasurement
from runtime.base.errors import DsrError, NotFound

# Figures where less is better.
_LESS_IS_BETTER = ("seconds", "bytes", "joules_per_token", "ppl", "kld_mean")


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """`before` is the previous measurement, None for the first; `change` is the ratio of their main figures."""

    stored: StoredMeasurement
    before: StoredMeasurement | None
    change: Ratio | None

    @property
    def worse(self) -> bool:
        """Whether it is worse by more than the 95 % interval."""
        if self.change is None or not self.change.differs:
            return False
        return (self.change.ratio > 1) == (self.change.figure in _LESS_IS_BETTER)

    def describe(self) -> str:
        """Returns '#9 nano tg128: tokens_per_second fell to 0.81 times that of #4, more than ...'."""
        if self.change is None or self.before is None:
            return ""
        row, old = self.stored.row, self.before.row
        moved = "rose" if self.change.ratio > 1 else "fell"
        notes = [
            f"#{self.stored.id} {row.model} {row.test}: {self.change.figure} {moved} to {self.change.ratio:.2f} times"
        ]
        notes[0] += f" that of #{self.before.id}, more than its 95 % interval"
        for name in old.conditions.differences(row.conditions):
            notes.append(f"{name} was {getattr(old.conditions, name)}, now {getattr(row.conditions, name)}")
        if row.conditions.disturbed:
            notes.append(row.conditions.disturbed)
        return "; ".join(notes)


def entries(stored: Sequence[StoredMeasurement]) -> tuple[HistoryEntry, ...]:
    """Returns an entry for each measurement. The latest comes first, in the argument and in the result."""
    latest: dict[tuple[str, ...], StoredMeasurement] = {}
    found = []
    for each in reversed(stored):
        row = each.row
        key = row.kind, row.model, row.digest, row.test, json.dumps(dict(row.parameters), sort_keys=True)
        before = latest.get(key)
        found.append(HistoryEntry(each, before, _change(before.row, row) if before is not None else None))
        latest[key] = each
    return tuple(reversed(found))


def _change(before: Measurement, row: Measurement) -> Ratio | None:
    main = formats.main_figure(row)
    return next((ratio for ratio in ratios(before, row) if ratio.figure == main), None)


def listed(
    store: Measurements, *, model: str | None = None, test: str | None = None, kind: Kind | None = None
) -> tuple[StoredMeasurement, ...]:
    """Returns stored measurements, the latest first. `model` is a name as it was measured, a file, or a reference."""
    found = store.list(kind=kind, test=test)
    return found if model is None else _of(model, found)


def _of(model: str, stored: Sequence[StoredMeasurement]) -> tuple[StoredMeasurement, ...]:
    found = tuple(each for each in stored if each.row.is_of(model))
    if found:
        return found
    with suppress(DsrError):
        reference = find(model).absolute_reference
        return tuple(each for each in stored if each.row.model == reference)
    return ()


def table(found: Sequence[HistoryEntry]) -> Table:
    columns = (*right("ID"), *left("WHEN", "MODEL", "TEST"), *right("MEASURED"), *left("", "CHANGE"))
    return Table.of(columns, map(_cells, found))


def _cells(entry: HistoryEntry) -> tuple[str, ...]:
    row = entry.stored.row
    when = datetime.fromtimestamp(row.at).strftime("%Y-%m-%d %H:%M")
    change = ""
    if entry.change is not None and entry.before is not None:
        percent = 100 * (entry.change.ratio - 1)
        verdict = "worse" if entry.worse else "better" if entry.change.differs else ""
        change = f"{percent:+.1f} % {verdict}".strip()
    return str(entry.stored.id), when, PurePath(row.model).name, row.test, *measured(entry), change


def measured(entry: HistoryEntry) -> tuple[str, str]:
    """Returns value and unit of the main figure."""
    name = formats.main_figure(entry.stored.row)
    figure = entry.stored.row.figures[name]
    return tables.value(figure, name), tables.UNITS.get(name, name)


def as_object(entry: HistoryEntry) -> dict[str, Any]:
    """Returns the entry for `--json`.

    `change`: the ratio of the main figure to that of the measurement before. `beyond_interval`: whether the change is
    larger than the 95 % interval; null without an interval.
    """
    change = entry.change
    return {
        "id": entry.stored.id,
        **formats.as_object(entry.stored.row),
        "before": entry.before.id if entry.before is not None else None,
        "change": change.ratio if change is not None else None,
        "beyond_interval": change.differs if change is not None else None,
        "worse": entry.worse,
    }


def chosen(text: str, store: Measurements) -> tuple[Measurement, ...]:
    """Returns the measurements that an argument of `dsr bench compare` names: '#12' or '12' is one of the history, a
    .json or .jsonl file is read, anything else is a model with the newest measurement of each test.

    Raises NotFound, and UsageError for a file without measurements."""
    number = text.removeprefix("#")
    if number.isascii() and number.isdecimal() and len(number) < 18:
        return (store.get(int(number)).row,)
    if Path(text).suffix.lower() in (".json", ".jsonl"):
        return formats.read(Path(text))
    rows = [stored.row for stored in _of(text, store.newest())]
    if not rows:
        raise NotFound(f"{text} was not measured", hint="see all measurements with: dsr bench history")
    # An earlier file with the same name is another file.
    return tuple(row for row in rows if row.digest == rows[-1].digest)
