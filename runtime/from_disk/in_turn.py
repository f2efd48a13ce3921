"""Decides which layers of a dense model stay in memory while the others are on the disk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class InTurn:
    """For layers that every token uses in turn: keeps those that come soonest, which is Belady's rule for a loop."""

    def __init__(self, layers: int) -> None:
        self._layers = np.arange(layers)

    def used(self, layer: int, counts: NDArray[np.integer]) -> None:
        """Nothing is to be learnt: the order is always the same."""

    def worth(self, layer: int) -> NDArray[np.float64]:
        """The worth of each layer while `layer` computes: less the later its turn comes."""
        turns: NDArray[np.int64] = (self._layers - layer) % len(self._layers)
        return -turns.astype(np.float64)
