"""Accuracy against the number of experts: means over tasks, a line for each way to choose experts."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dsr.bench.experts.chart import experts_chart
from dsr.bench.report.figures import share, share_interval
from dsr.bench.report.files import MeasuredFile
from dsr.loading.options import AUTO
from dsr.store.measurement import Figure, Measurement
from dsr.ui.charts.chart import Chart, Mark
from quant.experts.prune_plan import RANDOM

_KEPT = re.compile(r"(\d+) of (\d+)")


def experts(files: Sequence[MeasuredFile], command: str) -> tuple[Chart, ...]:
    """A chart for each file that was measured with fewer experts; one without marks if there is none."""
    found = {file.name: marks for file in files if (marks := tuple(_of_file(file)))}
    if not found:
        return (_chart("experts", "", (), command),)
    names = ("experts", *(f"experts-{number}" for number in range(2, len(found) + 1)))
    return tuple(
        _chart(name, f": {of}" if len(found) > 1 else "", marks, command)
        for name, (of, marks) in zip(names, found.items(), strict=True)
    )


def _chart(name: str, of: str, marks: Sequence[Mark], command: str) -> Chart:
    ordered = tuple(_with_names(sorted(marks, key=lambda mark: (mark.series, mark.across))))
    return experts_chart(ordered, title=f"Accuracy with fewer experts{of}", name=name, command=command)


def _with_names(marks: Sequence[Mark]) -> Iterator[Mark]:
    """The marks with the name of each line at its first mark; all lines end at the same mark."""
    for before, mark in zip([None, *marks], marks, strict=False):
        yield mark if before and before.series == mark.series else replace(mark, label=mark.series)


def _of_file(file: MeasuredFile) -> Iterator[Mark]:
    grouped: dict[tuple[str, object], list[Measurement]] = {}
    whole: list[Measurement] = []
    # The latest row of each test: an earlier run may have asked other questions.
    rows = {
        row.test: row
        for row in file.of("experts")
        if (accuracy := row.figures.get("accuracy")) is not None and 0 <= accuracy.mean <= 1
    }.values()
    tasks = {row.parameters.get("task") for row in rows}
    several = len({row.parameters.get("score") for row in rows} - {RANDOM}) > 1
    for row in rows:
        kept, automatic = _kept(row), row.parameters.get("keep") == AUTO
        if kept is not None and kept == row.parameters.get("experts") and not automatic:
            whole.append(row)
        elif kept is not None:
            # The automatic number of one task may be a number that was asked for in all tasks.
            grouped.setdefault((_chosen_by(row, several), AUTO if automatic else kept), []).append(row)
    lines = {by for by, _ in grouped} or {"all"}
    if whole:
        # With all experts there is no choice, so every line ends there.
        grouped |= {(by, _kept(whole[0])): whole for by in lines}
    apart: dict[str, list[Measurement]] = {}
    for (by, _), found in grouped.items():
        numbers = {_kept(row) or 0 for row in found}
        if {row.parameters.get("task") for row in found} != tasks:
            apart.setdefault(by, []).extend(found)
        elif len(numbers) == 1:
            [kept] = numbers
            yield _mark("all" if found is whole else by, f"{kept:g}", kept, found, by)
        else:
            yield _of_each_task(by, found)
    for by, found in apart.items():
        numbers_of_tasks = {(row.parameters.get("task"), _kept(row)) for row in found}
        if {task for task, _ in numbers_of_tasks} == tasks and len(numbers_of_tasks) == len(tasks):
            yield _of_each_task(by, found)


def _of_each_task(by: str, rows: Sequence[Measurement]) -> Mark:
    """A mark for tasks with different numbers of experts, at their mean."""
    of_tasks = {row.parameters.get("task"): _kept(row) or 0 for row in rows}
    kept = statistics.fmean(of_tasks.values())
    return _mark(f"{by}, a number for each task", f"{kept:.1f}", kept, rows, by)


def _mark(name: str, number: str, kept: float, rows: Sequence[Measurement], by: str) -> Mark:
    accuracy = _mean([row.figures["accuracy"] for row in rows])
    low, high = share_interval(accuracy)
    return Mark(
        label="",
        name=name,
        figures=(f"{number} experts", f"{share(accuracy)} right"),
        across=kept,
        up=100 * accuracy.mean,
        low=100 * low,
        high=100 * high,
        series=by,
    )


def _mean(figures: Sequence[Figure]) -> Figure:
    """The mean of independent means with equal weights."""
    errors = [figure.error for figure in figures if figure.error is not None]
    error = sum(each**2 for each in errors) ** 0.5 / len(figures) if len(errors) == len(figures) else None
    return Figure(statistics.fmean(figure.mean for figure in figures), error, sum(figure.count for figure in figures))


def _kept(row: Measurement) -> float | None:
    """The number of experts, from the parameters or from a test such as 'own 8 of 16'."""
    kept = row.parameters.get("kept")
    if isinstance(kept, (int, float)) and 0 < kept < 1e6:
        return float(kept)
    found = _KEPT.search(row.test)
    return float(found[1]) if found and len(found[1]) < 7 else None


def _chosen_by(row: Measurement, several: bool) -> str:
    """'own', 'merged'; 'own by mass' if there are several scores."""
    profile, score = row.parameters.get("profile"), row.parameters.get("score")
    by = str(profile) if profile else row.test.partition(" ")[0] or "?"
    return f"{by} by {score}" if several and score != by else by
