"""Accuracy and lengths by task of a suite: what a model can do, and whether wrong answers are longer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsr.bench.reason.judge import StrategyDecision, mean_length
from dsr.bench.reason.rows import StrategyRow
from dsr.suites.problem import SuiteProblem


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """The figures of one task, or of all ("").

    `accuracy`: by row, the share of right decisions. `right` and `wrong`: mean tokens of right and of wrong samples,
    None without any; each sample counts once.
    """

    task: str
    problems: int
    accuracy: tuple[tuple[str, float], ...]
    right: float | None
    wrong: float | None

    def json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "problems": self.problems,
            "by_row": {row: round(share, 6) for row, share in self.accuracy},
            "right_sample_tokens": None if self.right is None else round(self.right, 3),
            "wrong_sample_tokens": None if self.wrong is None else round(self.wrong, 3),
        }


def by_task(
    problems: Sequence[SuiteProblem], rows: Sequence[StrategyRow], decisions: Sequence[StrategyDecision]
) -> tuple[TaskFigures, ...]:
    """Returns the figures of each task in the order of the suite, then those of all problems."""
    tasks = list(dict.fromkeys(problem.task for problem in problems if problem.task))
    of_problem = {problem.id: problem.task for problem in problems}
    groups = [(task, [each for each in decisions if of_problem[each.problem] == task]) for task in tasks]
    every = [*(groups if len(groups) > 1 else []), ("", list(decisions))]
    return tuple(_figures(task, rows, group) for task, group in every if group)


def _figures(task: str, rows: Sequence[StrategyRow], decisions: Sequence[StrategyDecision]) -> TaskFigures:
    shares: dict[str, dict[str, list[float]]] = {}
    for each in decisions:
        shares.setdefault(each.row, {}).setdefault(each.problem, []).append(each.correct)
    accuracy = []
    for row in rows:
        of_row = list(shares.get(row.label, {}).values())
        if of_row:
            accuracy.append((row.label, math.fsum(sum(each) / len(each) for each in of_row) / len(of_row)))
    # The first row that uses every sample once: a single sample, else whichever comes first.
    labels = [row.label for row in rows if row.source == "shared" and row.size == 1] or [row.label for row in rows]
    samples = [each for each in decisions if each.row == labels[0]]
    return TaskFigures(
        task=task,
        problems=len({each.problem for each in decisions}),
        accuracy=tuple(accuracy),
        right=mean_length(length for each in samples for length in each.right),
        wrong=mean_length(length for each in samples for length in each.wrong),
    )
