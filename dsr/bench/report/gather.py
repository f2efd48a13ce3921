"""What a report is made of: the newest rows by file, cleaned, and the runs whose memory was foretold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dsr.store.measurement import Figure, Kind, Measurement, Parameter, short_name
from dsr.store.predictions import PredictedRun
from dsr.ui.console import one_line
from runtime.base.errors import NotFound

_LARGEST = 1e18  # what is above it was not measured
_TOLD = 8  # models, where none is what was asked for


@dataclass(frozen=True, slots=True)
class File:
    """A model file with its rows, the oldest first. `name` is short and tells it from the others."""

    name: str
    model: str
    digest: str
    size: int
    rows: tuple[Measurement, ...]

    def of(self, kind: Kind) -> tuple[Measurement, ...]:
        return tuple(row for row in self.rows if row.kind == kind)


@dataclass(frozen=True, slots=True)
class Gathered:
    """Largest files first; `runs` are those of the reported models, the oldest first."""

    files: tuple[File, ...]
    runs: tuple[PredictedRun, ...]

    @property
    def rows(self) -> tuple[Measurement, ...]:
        return tuple(row for file in self.files for row in file.rows)


def gather(rows: Sequence[Measurement], runs: Sequence[PredictedRun], models: Sequence[str] = ()) -> Gathered:
    """Of all models, or those named: as they were measured, by the names of their files, or the beginning of a digest.

    Raises NotFound where nothing was measured.
    """
    if not rows:
        raise NotFound("nothing has been measured yet", hint="dsr bench all nano")
    for model in models:
        if not any(row.is_of(model) for row in rows):
            known = list(dict.fromkeys(one_line(short_name(row.model)) for row in reversed(rows)))
            more = f" and {len(known) - _TOLD} more" if len(known) > _TOLD else ""
            there = f"{', '.join(known[:_TOLD])}{more}"
            raise NotFound(f"nothing was measured of {model}; there is {there}", hint="dsr bench history")
    wanted = [_clean(row) for row in rows if not models or any(row.is_of(model) for model in models)]
    by_digest: dict[str, list[Measurement]] = {}
    for row in wanted:
        by_digest.setdefault(row.digest, []).append(row)
    files = [
        File(short_name(model := _called(group)), model, digest, group[-1].size, tuple(group))
        for digest, group in by_digest.items()
    ]
    named = {short_name(file.model) for file in files}
    cleaned = [replace(run, model=one_line(run.model) or "?") for run in runs]
    return Gathered(
        files=tuple(sorted(_told_apart(files), key=lambda file: (-file.size, file.name, file.digest))),
        runs=tuple(run for run in cleaned if not models or short_name(run.model) in named),
    )


def _called(rows: Sequence[Measurement]) -> str:
    """By the latest name, and by a model's rather than that of a file which has the same in it."""
    names = [row.model for row in reversed(rows)]
    return next((name for name in names if not name.casefold().endswith(".gguf")), names[0])


def _told_apart(files: Sequence[File]) -> list[File]:
    names = [file.name for file in files]
    return [
        replace(file, name=f"{file.name} ({file.digest[:6]})") if names.count(file.name) > 1 else file for file in files
    ]


def _clean(row: Measurement) -> Measurement:
    """Without what could hurt a page: characters that draw nothing, numbers that are none."""
    told = row.conditions
    return replace(
        row,
        model=one_line(row.model) or "?",
        digest=one_line(row.digest),
        test=one_line(row.test),
        parameters={one_line(name): _clean_parameter(value) for name, value in row.parameters.items()},
        figures={name: figure for name, figure in row.figures.items() if _sound(figure)},
        conditions=replace(
            told,
            processor=one_line(told.processor),
            dsr=one_line(told.dsr),
            engine=one_line(told.engine),
            disturbed=one_line(told.disturbed),
        ),
    )


def _clean_parameter(value: Parameter) -> Parameter:
    return one_line(value) if isinstance(value, str) else value


def _sound(figure: Figure) -> bool:
    numbers = (figure.mean, figure.error or 0.0, figure.count)
    return all(math.isfinite(number) and abs(number) < _LARGEST for number in numbers)
