"""The history of measurements, in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsr.store.database import Content, Database, Migrations
from dsr.store.measurement import Kind, Measurement
from runtime.base.errors import NotFound

_CONTENT = Content("measurements", "bench with --no-log")


@dataclass(frozen=True, slots=True)
class StoredMeasurement:
    """A measurement and its number in the file."""

    id: int
    row: Measurement


def _create(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE rows (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL,"
        " model TEXT NOT NULL, digest TEXT NOT NULL, test TEXT NOT NULL, body TEXT NOT NULL)"
    )
    database.execute("CREATE INDEX rows_of_model ON rows (model, test)")


MIGRATIONS: Migrations = (_create,)


class Measurements:
    """The file at `path`, made if it is missing. Close it, or use it in a `with` block. Raises as `Database` does."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _CONTENT, MIGRATIONS)

    def __enter__(self) -> Measurements:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def add(self, rows: Sequence[Measurement]) -> None:
        """Adds all of them or none."""
        with self._database.writing() as database:
            database.executemany(
                "INSERT INTO rows (at, kind, model, digest, test, body) VALUES (?, ?, ?, ?, ?, ?)",
                [(r.at, r.kind, r.model, r.digest, r.test, json.dumps(r.json())) for r in rows],
            )

    def holds(self, row: Measurement) -> bool:
        """Returns whether the history has the same test, parameters and figures of the same file, from any time."""
        return any(
            (each.row.digest, each.row.parameters, each.row.figures) == (row.digest, row.parameters, row.figures)
            for each in self.list(kind=row.kind, model=row.model, test=row.test)
        )

    def get(self, id: int) -> StoredMeasurement:
        """Raises NotFound."""
        found = self._select("WHERE id = ?", (id,))
        if not found:
            raise NotFound(f"there is no measurement {id}", hint="to list them: dsr bench history")
        return found[0]

    def list(
        self, *, kind: Kind | None = None, model: str | None = None, test: str | None = None, limit: int = -1
    ) -> tuple[StoredMeasurement, ...]:
        """Returns those of a kind, a model and a test, the latest first. `limit` -1 means all."""
        conditions = {"kind": kind, "model": model, "test": test}
        given = {name: value for name, value in conditions.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given)
        return self._select(f"{'WHERE ' if where else ''}{where} ORDER BY id DESC LIMIT ?", (*given.values(), limit))

    def newest(self) -> tuple[StoredMeasurement, ...]:
        """Returns the one to believe of each model file, test and parameters, the oldest of them first.

        That is the latest; but an earlier one under the same conditions, if that was less disturbed, or the mean of
        more measurements.
        """
        groups: dict[tuple[object, ...], list[StoredMeasurement]] = {}
        for each in self._select("ORDER BY id"):
            row = each.row
            groups.setdefault((row.kind, row.digest, row.test, json.dumps(row.parameters)), []).append(each)
        return tuple(sorted(map(_best, groups.values()), key=lambda each: each.id))

    def delete(self, id: int) -> None:
        """Deletes one. Raises NotFound."""
        self.get(id)
        with self._database.writing() as database:
            database.execute("DELETE FROM rows WHERE id = ?", (id,))

    def _select(self, clauses: str, arguments: tuple[object, ...] = ()) -> tuple[StoredMeasurement, ...]:
        with self._database.errors():
            found = self._database.connection.execute(f"SELECT id, body FROM rows {clauses}", arguments).fetchall()
            return tuple(StoredMeasurement(id, Measurement.of(json.loads(str(body)))) for id, body in found)


def _best(found: Sequence[StoredMeasurement]) -> StoredMeasurement:
    """The one to believe of those with the same parameters, which come oldest first."""
    latest = found[-1].row.conditions
    alike = [each for each in found if not latest.differences(each.row.conditions)]
    return max(alike, key=lambda each: (not each.row.conditions.disturbed, _count(each.row), each.id))


def _count(row: Measurement) -> int:
    return max((figure.count for figure in row.figures.values()), default=0)
