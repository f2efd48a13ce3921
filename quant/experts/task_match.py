"""Matches a question with the stored tasks, by the logits of the first router alone.

The idea is PreMoe's (arXiv 2505.17639, "task-adaptive expert retrieval"): the first router already separates tasks, and
computing it costs almost nothing. dsr differs in two ways. The key of a question is the mean and the standard deviation
of all logits, not the mean logit of each token's best expert. dsr compares it with every question of a profile, not
with their mean, because the questions of one task can be far apart. A question that is close to no stored question
matches no task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The limit of a task is this factor times its spread: the largest distance of one of its questions to the nearest
# other one. Without slack, one of n + 1 questions of the task would be beyond the limit by chance.
SLACK = 1.5
# Fewer questions do not show the spread of a task.
MIN_QUESTIONS = 3
# A task matches from this certainty on; here the question is as likely to belong to no task.
MIN_CERTAINTY = 0.5
# How fast the certainty falls with the distance: 0.98 at half the limit when no other task is near.
_STEEPNESS = 5.2


@dataclass(frozen=True, slots=True)
class Match:
    """The matching task, None for no match.

    `ranking` has all comparable tasks with their certainties, the most likely first. `certainty` is that of the first
    task: 1 at a stored question, `MIN_CERTAINTY` at the limit.
    """

    task: str | None
    certainty: float
    ranking: tuple[tuple[str, float], ...]


def question_key(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features of one question: (tokens, experts) raw logits of the first router -> (2 * experts), their mean over
    the tokens and their standard deviation."""
    return np.concatenate([logits.mean(axis=0), logits.std(axis=0)]).astype(np.float32)


def match_task(query: NDArray[np.float32], keys: Mapping[str, NDArray[np.float32]]) -> Match:
    """Finds the task of a question. `keys`: by task (questions, features), made by `question_key`.

    The nearest stored question (L2) decides. The limit of its distance comes from the distances within its task.
    Tasks with fewer than MIN_QUESTIONS different questions are not compared.
    """
    limits = {task: _limit(questions) for task, questions in keys.items()}
    distances = {
        task: float(np.linalg.norm(keys[task] - query, axis=1).min()) for task, limit in limits.items() if limit
    }
    if not distances:
        return Match(None, 0.0, ())
    limit = limits[min(distances, key=distances.__getitem__)]
    likeness = {task: math.exp(-_STEEPNESS * (distance / limit) ** 2) for task, distance in distances.items()}
    whole = sum(likeness.values()) + math.exp(-_STEEPNESS)
    ranked = sorted(((task, value / whole) for task, value in likeness.items()), key=lambda pair: (-pair[1], pair[0]))
    task, certainty = ranked[0]
    return Match(task if certainty >= MIN_CERTAINTY else None, certainty, tuple(ranked))


def _limit(questions: NDArray[np.float32]) -> float:
    """The largest distance to the nearest stored question that still matches this task; 0 for too few questions."""
    different = np.unique(questions, axis=0)
    if len(different) < MIN_QUESTIONS:
        return 0.0
    apart = np.linalg.norm(different[:, None] - different[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return SLACK * float(apart.min(axis=1).max())
