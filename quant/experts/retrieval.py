"""Which stored task a question belongs to, told by the first router alone.

The idea is PreMoe's (arXiv 2505.17639, "task-adaptive expert retrieval"): the router of the first layer with experts
already tells tasks apart, and reaching it costs next to nothing. Two things are done otherwise than there. The key is
not the mean logit of each token's best expert but the mean and the spread of all logits, and it is compared with each
question of a profile, not with their mean: phrasings of one task may lie far apart. And a question that is like none
of the stored ones belongs to no task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A question may lie so many times as far from its task's nearest question as the farthest of those lies from the
# nearest other one: of n questions one in n + 1 would lie beyond that farthest distance by chance alone.
SLACK = 1.5
# Fewer questions do not tell how wide a task is.
LEAST_QUESTIONS = 3
# From this certainty on a task is taken: it is where a question is as likely foreign.
SURE = 0.5
# How fast certainty falls with the distance: 0.98 at half the way to the limit when no other task is near.
_STEEPNESS = 5.2


@dataclass(frozen=True, slots=True)
class Match:
    """`task` None: like nothing stored. `ranking` has every task that could be compared, the likeliest first, with its
    certainty; `certainty` is that of the first: 1 at a stored question, `SURE` where it is as likely foreign."""

    task: str | None
    certainty: float
    ranking: tuple[tuple[str, float], ...]


def key(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is compared of one question: (tokens, experts) raw logits of the first router -> (2 * experts) features,
    their mean over the tokens and their standard deviation."""
    return np.concatenate([logits.mean(axis=0), logits.std(axis=0)]).astype(np.float32)


def match(query: NDArray[np.float32], keys: Mapping[str, NDArray[np.float32]]) -> Match:
    """Find the task of a question. `keys`: per task (questions, features), as `key` made them.

    The nearest stored question decides (L2). How far it may lie its task's questions tell, leaving one out at a time.
    Tasks with fewer than LEAST_QUESTIONS different questions take no part.
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
    return Match(task if certainty >= SURE else None, certainty, tuple(ranked))


def _limit(questions: NDArray[np.float32]) -> float:
    """How far a question of this task may lie from the nearest stored one; 0 where that cannot be told."""
    different = np.unique(questions, axis=0)
    if len(different) < LEAST_QUESTIONS:
        return 0.0
    apart = np.linalg.norm(different[:, None] - different[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return SLACK * float(apart.min(axis=1).max())
