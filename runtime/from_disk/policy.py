"""Decides which experts of a mixture stay in memory while the others are on the disk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# In tokens: a choice counts exp(-age / tokens). An expert's chance is a mean of its shares at all these time scales.
TIME_SCALES = (1.0, 8.0, 64.0, 1024.0)
# Passes after which the weights of the time scales have followed a change. 4 to 16 do equally well.
_LEARNING = 8
_LEAST_WEIGHT = 0.01  # so that a time scale can come back
# The even prior counts as one token: it only keeps the first shares from being 0 or 1.
_PRIOR = 1.0
# A seed counts as this many tokens of the longest time scale.
_SEED = 64.0
_LEAST_CHANCE = 1e-9  # keeps the worth finite


class Frequency:
    """Ranks experts by the time until their next use, expected from how often tokens chose them.

    Choices age as in LRFU (Lee et al., IEEE Transactions on Computers 50(12), 2001), with a clock of tokens, at several
    time scales: the shortest follows a text, the longest knows the task. The scales that foretold the last passes best
    have the most weight: routers that repeat themselves need short ones, independent choices long ones. A pass of n
    tokens counts as n passes of one token, so neither a long prompt nor eight votes outweigh the rest.

    The size of an expert does not matter: reading it again costs as much more as keeping it. docs/log.md has the
    measurements, "Experts from disk: which stay".
    """

    def __init__(self, layers: int, experts: int, active: int, *, seed: NDArray[np.number] | None = None) -> None:
        """`layers` are those with routed experts. Each token chooses `active` of `experts` in each.

        `seed` is (layers, experts): how often a task chose each expert, in any unit, as `Routing.selected` of a
        profile. Raises ValueError for a seed of another shape, or with a negative or infinite number.
        """
        if layers < 1 or not 1 <= active <= experts:
            raise ValueError(f"{layers} layers with {active} of {experts} experts")
        self._active = active
        memories = np.array(TIME_SCALES)[:, None]
        self._decay = np.exp(-1 / memories)
        self._weights = np.full(len(memories), 1 / len(memories))
        self._rate = 1 / (_LEARNING * layers)
        self._chosen = np.full((layers, len(memories), experts), _PRIOR * active / experts)
        self._tokens = np.full((layers, len(memories), 1), _PRIOR)
        if seed is not None:
            share = _shares(seed, layers, experts, active)
            # Forgotten by each time scale as fast as it forgets anything: the shortest hardly knows it.
            strength = np.minimum(_SEED, memories)
            self._chosen += strength * share[:, None]
            self._tokens += strength
        # Passes until a layer computes again, by the layer that computes now: above 0, and 1 for itself.
        order = np.arange(layers)
        self._turns = ((order[None] - order[:, None] - 1) % layers + 1) / layers
        self._wait = np.empty((layers, experts))
        for layer in range(layers):
            self._expect(layer)

    def used(self, layer: int, counts: NDArray[np.integer]) -> None:
        """Note how many tokens of this pass chose each expert of a layer: `counts` (experts,). Call before `worth`."""
        picks = int(counts.sum())
        if not picks:
            return
        chosen, seen = self._chosen[layer], self._tokens[layer]
        self._weigh(chosen / seen, counts / picks)
        tokens = picks / self._active
        kept = self._decay**tokens
        weight = (1 - kept) / (1 - self._decay)  # of all tokens of this pass: 1 + decay + decay^2 + ...
        chosen *= kept
        chosen += weight / tokens * counts
        seen *= kept
        seen += weight
        self._expect(layer)

    def worth(self, layer: int) -> NDArray[np.float64]:
        """The worth of each unit while `layer` computes, (layers * experts,): 1 / the expected passes until its use.

        A unit whose layer computes again in d passes (0 < d <= 1), and which a pass needs with the chance p, is
        expected to be used in d + (1 - p) / p passes.
        """
        worth: NDArray[np.float64] = 1 / (self._wait + self._turns[layer][:, None]).ravel()
        return worth

    def _weigh(self, shares: NDArray[np.float64], chosen: NDArray[np.float64]) -> None:
        """Moves the weights towards those that make the `chosen` experts likeliest, from `shares` (scales, experts).

        One step of expectation maximisation (Cappe and Moulines, Journal of the Royal Statistical Society B 71(3),
        2009, for the weights of a mixture)."""
        expected = np.maximum(self._weights @ shares, _LEAST_CHANCE)
        credit = self._weights * (shares @ (chosen / expected))
        weights = np.maximum(self._weights + self._rate * (credit - self._weights), _LEAST_WEIGHT)
        self._weights = weights / weights.sum()

    def _expect(self, layer: int) -> None:
        """Sets how many passes are expected to leave each expert of a layer out before one needs it."""
        chance = self._weights @ (self._chosen[layer] / self._tokens[layer])
        self._wait[layer] = 1 / np.minimum(np.maximum(chance, _LEAST_CHANCE), 1) - 1


def _shares(seed: NDArray[np.number], layers: int, experts: int, active: int) -> NDArray[np.float64]:
    """The share of tokens that chose each expert; the even share in a layer where no token is known."""
    if seed.shape != (layers, experts) or not np.isfinite(seed).all() or (seed < 0).any():
        raise ValueError(f"a seed of the shape {seed.shape} for {layers} layers of {experts} experts")
    shares = np.full((layers, experts), active / experts)
    tokens = seed.sum(axis=1, keepdims=True) / active
    np.divide(seed, tokens, out=shares, where=tokens > 0)
    np.minimum(shares, 1, out=shares)
    return shares
