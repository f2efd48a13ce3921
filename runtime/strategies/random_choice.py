"""Choosing by chance, reproducibly: the random state is always the caller's."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence


def softmax(scores: Sequence[float]) -> list[float]:
    """Less the largest score first, so that nothing overflows."""
    peak = max(scores, default=0.0)
    raised = [math.exp(score - peak) for score in scores]
    return [each / math.fsum(raised) for each in raised]


def without_replacement(weights: Sequence[float], wanted: int, chance: random.Random) -> list[int]:
    """Indexes drawn one after another by weight, none twice; all when there are fewer than `wanted`."""
    left = dict(enumerate(weights))
    drawn: list[int] = []
    while left and len(drawn) < wanted:
        # Where all that is left weighs nothing (it underflowed), each has the same chance.
        total = math.fsum(left.values())
        [index] = chance.choices(list(left), list(left.values()) if total > 0 else None)
        drawn.append(index)
        del left[index]
    return drawn
