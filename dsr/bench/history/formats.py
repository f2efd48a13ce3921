"""Writes measurements as JSON, JSON lines and CSV, and reads JSON and JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dsr.bench.kit.table import csv_text
from dsr.store.measurement import Measurement
from runtime.base.errors import UsageError
from runtime.base.texts import json_text, read_text

_FIELDS = tuple(field.name for field in fields(Measurement))
# The main figure of a measurement is the first of these that it has.
_MAIN = ("accuracy", "kld_mean", "ppl", "tokens_per_second", "seconds", "bytes")


def main_figure(row: Measurement) -> str:
    """Returns the name of the main figure. Raises ValueError for a measurement without figures."""
    for name in (*_MAIN, *row.figures):
        if name in row.figures:
            return name
    raise ValueError(f"{row.test} has no figures")


def as_object(row: Measurement) -> dict[str, Any]:
    """Returns the means by name, the standard deviation of the main figure, then the fields of `Measurement.json`."""
    return {"model": row.model, "test": row.test, **_means(row), **row.json()}


def as_jsonl(rows: Sequence[Measurement]) -> str:
    return "".join(json_text(as_object(row)) + "\n" for row in rows)


def as_csv(rows: Sequence[Measurement]) -> str:
    """Returns a line for each measurement; the columns are all figures, parameters and conditions of any of them."""
    return csv_text([_flat(row) for row in rows])


def read(path: Path) -> tuple[Measurement, ...]:
    """Reads a file that `--json`, `--jsonl` or `--rows` wrote. Raises NotFound, and UsageError for another file."""
    try:
        return tuple(_row(body) for body in _bodies(read_text(path)))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} has no measurements: {error}", hint="dsr bench speed MODEL --rows FILE") from None


def _bodies(text: str) -> list[Any]:
    """Returns the rows of one JSON object, or one row for each line."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise ValueError("it is empty")
    try:
        bodies = [json.loads(line) for line in lines]
    except ValueError:
        bodies = [json.loads(text)]
    bodies = [each for each in bodies if not (isinstance(each, Mapping) and each.get("schema") == "dsr.event/1")]
    if len(bodies) == 1 and isinstance(bodies[0], Mapping) and "rows" in bodies[0]:
        bodies = bodies[0]["rows"]
    if not isinstance(bodies, list) or not bodies:
        raise ValueError("it has no rows")
    return bodies


def _row(body: Any) -> Measurement:
    if not isinstance(body, Mapping):
        raise ValueError("a row must be an object")
    return Measurement.of({name: body[name] for name in _FIELDS if name in body})


def _means(row: Measurement) -> dict[str, float | int | None]:
    main = row.figures[main_figure(row)]
    deviation = None if main.error is None else main.error * math.sqrt(main.count)
    found: dict[str, float | int | None] = {name: figure.mean for name, figure in row.figures.items()}
    if (joules := row.figures.get("joules_per_token")) is not None and joules.mean > 0:
        found["tokens_per_joule"] = 1 / joules.mean
    return {**found, "stddev": deviation, "count": main.count}


def _flat(row: Measurement) -> dict[str, Any]:
    body = row.json()
    rest = {name: body[name] for name in ("kind", "digest", "size", "at")}
    return {
        "model": row.model,
        "test": row.test,
        **_means(row),
        **rest,
        **row.parameters,
        **body["conditions"],
        "memory": int(row.conditions.memory),
    }
