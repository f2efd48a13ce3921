"""Random choices, reproducible: the random state is the caller's."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities in proportion to exp(score), without overflow."""
    peak = max(scores, default=0.0)
    raised = [math.exp(score - peak) for score in scores]
    return [each / math.fsum(raised) for each in raised]


def without_replacement(weights: Sequence[float], wanted: int, rng: random.Random) -> list[int]:
    """Indices drawn one after another by weight, none twice; all indices when there are fewer than `wanted`."""
    left = dict(enumerate(weights))
    drawn: list[int] = []
    while left and len(drawn) < wanted:
        # Where all weights that are left underflowed to 0, each index has the same probability.
        total = math.fsum(left.values())
        [index] = rng.choices(list(left), list(left.values()) if total > 0 else None)
        drawn.append(index)
        del left[index]
    return drawn
