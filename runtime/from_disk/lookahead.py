"""Corrects the guess of what a layer's router will choose, made before the layer's input is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The share of the error that one token corrects. On the embedded model 0.05 to 0.3 name equally many experts rightly.
_RATE = 0.1


class Lookahead:
    """Learns how the scores of each router differ from a guess: the same router applied to an earlier layer's input.

    Most of the difference is the same for neighbouring tokens, so the running mean of the errors corrects the guess. It
    matters most for experts that are not in memory: docs/log.md, "Experts from disk: which stay".
    """

    def __init__(self, layers: int, experts: int) -> None:
        self._errors = np.zeros((layers, experts), np.float32)
        self._guessed: dict[int, NDArray[np.float32]] = {}

    def guess(self, layer: int, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """The corrected scores of a layer's router, from guessed `scores`, (tokens, experts) before any softmax."""
        self._guessed[layer] = scores
        corrected: NDArray[np.float32] = scores + self._errors[layer]
        return corrected

    def met(self, layer: int, scores: NDArray[np.float32]) -> None:
        """Note the true scores of this pass. Ignored if none were guessed for the same number of tokens."""
        guessed = self._guessed.pop(layer, None)
        # The last layer of a prompt may compute its last token only.
        if guessed is None or guessed.shape != scores.shape or not len(scores):
            return
        error = (scores - guessed).mean(axis=0)
        if np.isfinite(error).all():
            self._errors[layer] += (1 - (1 - _RATE) ** len(scores)) * (error - self._errors[layer])
