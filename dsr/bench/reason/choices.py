"""Scores the choices of a question by their likelihood, instead of drawing an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dsr.bench.reason.judge import StrategyDecision
from dsr.bench.reason.rows import StrategyRow
from dsr.suites.problem import LETTERS, Suite, SuiteProblem
from runtime.base.errors import UsageError


def check_choices(suite: Suite, problems: Sequence[SuiteProblem]) -> None:
    """Raises UsageError for a suite with a question that has no choices."""
    without = next((problem for problem in problems if not problem.choices), None)
    if without is not None:
        raise UsageError(
            f"{suite.name}: the question {without.id} has no choices, and --score likelihood compares choices",
            hint='--suite choices, or a JSONL file whose lines have "choices": ["...", ...]',
        )


def letters_of(problem: SuiteProblem) -> str:
    return LETTERS[: len(problem.choices)]


def scored_entry(
    problem: SuiteProblem,
    letters: Sequence[Sequence[float]],
    texts: Sequence[Sequence[float]],
    seconds: float,
) -> dict[str, Any]:
    """Returns the entry of a scored question: for each choice, the sums of natural log-probabilities."""
    return {
        "id": problem.id,
        "letter": [math.fsum(each) for each in letters],
        "text": [math.fsum(each) for each in texts],
        "tokens": {"letter": sum(map(len, letters)), "text": sum(map(len, texts))},
        "seconds": round(seconds, 4),
    }


def choice_decision(row: StrategyRow, problem: SuiteProblem, entry: Mapping[str, Any]) -> StrategyDecision:
    """Returns the most likely choice; of equals, the first. `tokens`: how many were scored."""
    rule = row.label.removeprefix("choice by ")
    values = list(entry["letter" if rule == "letter" else "text"])
    if rule == "text per byte":
        values = [value / len(text.encode()) for value, text in zip(values, problem.choices, strict=True)]
    best = max(range(len(values)), key=values.__getitem__)
    tokens = entry["tokens"]["letter" if rule == "letter" else "text"]
    return StrategyDecision(
        row=row.label,
        problem=problem.id,
        samples=(),
        winner=LETTERS[best],
        correct=float(best == problem.right_choice),
        tied=values.count(values[best]) > 1,
        spent=tokens,
        sequential=0,
        seconds=entry["seconds"],
        rule=f"the highest likelihood by {rule}",
    )
