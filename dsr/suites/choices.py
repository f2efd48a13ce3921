"""Questions with four choices, made of questions with short answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from dsr.suites.problem import LETTERS, SuiteProblem
from runtime import answers

_CHOICES = 4
# Their questions list what can be answered.
_LISTED = ("animals", "colours", "kinds")


def with_choices(problems: Sequence[SuiteProblem]) -> tuple[SuiteProblem, ...]:
    """Returns the problems whose task has enough other answers, each with three of them. Always the same."""
    made = []
    for problem in problems:
        others = _others(problem, problems)
        draw = random.Random(problem.id)
        wrong = sorted(others, key=lambda _: draw.random())[: _CHOICES - 1]
        if problem.task in _LISTED or len(wrong) < _CHOICES - 1:
            continue
        place = int(draw.random() * _CHOICES)
        choices = (*wrong[:place], problem.answer, *wrong[place:])
        made.append(replace(problem, choices=choices, answer=LETTERS[place]))
    return tuple(made)


def _others(problem: SuiteProblem, problems: Sequence[SuiteProblem]) -> list[str]:
    """Returns the different answers to other problems of the task that the question does not name."""
    asked = problem.question.casefold()
    found: list[str] = []
    for other in problems:
        answer = other.answer
        known = [problem.answer, *found]
        if other.task == problem.task and answer.casefold() not in asked:
            found += [] if any(answers.are_equal(answer, each) for each in known) else [answer]
    return found
