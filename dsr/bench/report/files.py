"""The input of a report: the newest rows of each model file, and runs with predicted memory; safe to print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dsr.store.measurement import Figure, Kind, Measurement, Parameter, short_name
from dsr.store.predictions import PredictedRun
from dsr.ui.console import one_line
from runtime.base.errors import NotFound

_LARGEST = 1e18  # a larger figure is an error
_NAMED = 8  # models that an error names


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """A model file with its rows, the oldest first. `name` is short, and unique in the report."""

    name: str
    model: str
    digest: str
    size: int
    rows: tuple[Measurement, ...]

    def of(self, kind: Kind) -> tuple[Measurement, ...]:
        return tuple(row for row in self.rows if row.kind == kind)


@dataclass(frozen=True, slots=True)
class ReportInput:
    """`files`: the largest first. `runs`: those of the reported models, the oldest first."""

    files: tuple[MeasuredFile, ...]
    runs: tuple[PredictedRun, ...]

    @property
    def rows(self) -> tuple[Measurement, ...]:
        return tuple(row for file in self.files for row in file.rows)


def select(rows: Sequence[Measurement], runs: Sequence[PredictedRun], models: Sequence[str] = ()) -> ReportInput:
    """The input for all models, or for those named by reference, by file name or by the beginning of a digest.

    Raises NotFound if nothing was measured.
    """
    if not rows:
        raise NotFound("nothing has been measured yet", hint="dsr bench all nano")
    for model in models:
        if not any(row.is_of(model) for row in rows):
            known = list(dict.fromkeys(one_line(short_name(row.model)) for row in reversed(rows)))
            more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
            there = f"{', '.join(known[:_NAMED])}{more}"
            raise NotFound(f"{model} was not measured; measured models: {there}", hint="dsr bench history")
    wanted = [_clean(row) for row in rows if not models or any(row.is_of(model) for model in models)]
    by_digest: dict[str, list[Measurement]] = {}
    for row in wanted:
        by_digest.setdefault(row.digest, []).append(row)
    files = [
        MeasuredFile(short_name(model := _model_name(group)), model, digest, group[-1].size, tuple(group))
        for digest, group in by_digest.items()
    ]
    named = {short_name(file.model) for file in files}
    cleaned = [replace(run, model=one_line(run.model) or "?") for run in runs]
    return ReportInput(
        files=tuple(sorted(_with_unique_names(files), key=lambda file: (-file.size, file.name, file.digest))),
        runs=tuple(run for run in cleaned if not models or short_name(run.model) in named),
    )


def _model_name(rows: Sequence[Measurement]) -> str:
    """The latest name of a model; the path of a file only if no row has another name."""
    names = [row.model for row in reversed(rows)]
    return next((name for name in names if not name.casefold().endswith(".gguf")), names[0])


def _with_unique_names(files: Sequence[MeasuredFile]) -> list[MeasuredFile]:
    names = [file.name for file in files]
    return [
        replace(file, name=f"{file.name} ({file.digest[:6]})") if names.count(file.name) > 1 else file for file in files
    ]


def _clean(row: Measurement) -> Measurement:
    """The row without control characters, and without figures that are no finite numbers."""
    conditions = row.conditions
    return replace(
        row,
        model=one_line(row.model) or "?",
        digest=one_line(row.digest),
        test=one_line(row.test),
        parameters={one_line(name): _clean_parameter(value) for name, value in row.parameters.items()},
        figures={name: figure for name, figure in row.figures.items() if _is_valid(figure)},
        conditions=replace(
            conditions,
            processor=one_line(conditions.processor),
            dsr=one_line(conditions.dsr),
            engine=one_line(conditions.engine),
            disturbed=one_line(conditions.disturbed),
        ),
    )


def _clean_parameter(value: Parameter) -> Parameter:
    return one_line(value) if isinstance(value, str) else value


def _is_valid(figure: Figure) -> bool:
    numbers = (figure.mean, figure.error or 0.0, figure.count)
    return all(math.isfinite(number) and abs(number) < _LARGEST for number in numbers)
