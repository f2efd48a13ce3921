"""Scores of experts: how much each expert is worth on some tasks, from the statistics of the routers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from quant.experts.profile import Profile
from quant.measure.imatrix import Routing
from runtime.base.errors import UsageError

Score = Callable[[Routing], NDArray[np.float64]]


def _counts(routing: Routing) -> NDArray[np.float64]:
    return routing.selected.astype(np.float64)


def _mass(routing: Routing) -> NDArray[np.float64]:
    return routing.weight


def _probability(routing: Routing) -> NDArray[np.float64]:
    return routing.probability


def _tcess(routing: Routing) -> NDArray[np.float64]:
    """PreMoe (arXiv 2505.17639): the sum of the raw logits of the tokens that ranked the expert first.

    Logits may be negative: an expert that was never first, with a sum of 0, would outrank one that was. So the sums of
    the others are raised above 0 and keep their order.
    """
    logits = routing.top_logit
    return np.where(logits != 0, logits - 2 * min(logits.min(), 0.0), 0.0)


def _easy_ep(routing: Routing) -> NDArray[np.float64]:
    """EASY-EP (arXiv 2504.06792), without the token's factor: routing weight times length of the output."""
    return routing.output


SCORES: Mapping[str, Score] = MappingProxyType(
    {"easy-ep": _easy_ep, "mass": _mass, "probability": _probability, "counts": _counts, "tcess": _tcess}
)
# The best score on the embedded model with half the experts or fewer, together with "mass"; see docs/experts.md.
DEFAULT_SCORE = "easy-ep"


def scores(profiles: Sequence[Profile], score: str = DEFAULT_SCORE) -> dict[int, NDArray[np.float64]]:
    """The score of each expert by layer, (experts,), with sum 1, or 0 where no token was routed.

    Each profile has the same weight, also for texts of different lengths. Raises UsageError for an unknown score.
    """
    if score not in SCORES:
        raise UsageError(f"unknown score {score!r}", hint=f"choose one of {', '.join(SCORES)}")
    return _merged(profiles, SCORES[score])


def ranking(profiles: Sequence[Profile], score: str = DEFAULT_SCORE) -> dict[int, NDArray[np.intp]]:
    """All experts by layer, the best first.

    Experts with equal scores (no token selected them) are ordered by selections, then by the router's
    probabilities, then by their number.
    """
    best = scores(profiles, score)
    counts, probability = _merged(profiles, _counts), _merged(profiles, _probability)
    return {layer: np.lexsort((-probability[layer], -counts[layer], -values)) for layer, values in best.items()}


def _merged(profiles: Sequence[Profile], score: Score) -> dict[int, NDArray[np.float64]]:
    layers = sorted({layer for profile in profiles for layer in profile.routing})
    found = {
        layer: np.sum([_shares(score(profile.routing[layer])) for profile in profiles if layer in profile.routing], 0)
        for layer in layers
    }
    return {layer: _shares(values) for layer, values in found.items()}


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total = values.sum()
    return np.asarray(values / total if total > 0 else np.zeros_like(values))
