"""A trace: the experts that a text chose, pass after pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """`counts` is (passes, layers, experts): how many tokens of a pass chose each expert of a layer.

    Each token chooses `active` experts of a layer. Raises ValueError if a layer of a pass chose nothing.
    """

    counts: NDArray[np.integer]
    active: int

    def __post_init__(self) -> None:
        if self.counts.ndim != 3 or not self.counts.size or (self.counts < 0).any():
            raise ValueError(f"counts of the shape {self.counts.shape}")
        if not 1 <= self.active <= self.experts or (self.counts.sum(axis=2) % self.active).any():
            raise ValueError(f"counts do not fit to {self.active} active experts")
        if (np.count_nonzero(self.counts, axis=2) < self.active).any():
            raise ValueError(f"a pass chose less than {self.active} experts of a layer")

    @property
    def passes(self) -> int:
        return int(self.counts.shape[0])

    @property
    def layers(self) -> int:
        return int(self.counts.shape[1])

    @property
    def experts(self) -> int:
        """The number of experts in each layer."""
        return int(self.counts.shape[2])

    @property
    def units(self) -> int:
        """The number of experts of all layers."""
        return self.layers * self.experts

    @property
    def most_at_once(self) -> int:
        """The largest number of experts that one pass chose in one layer: all must be in memory together."""
        return int(np.count_nonzero(self.counts, axis=2).max())

    def needed(self, number: int, layer: int) -> NDArray[np.intp]:
        """The units (layer * experts + expert) that a pass needs while `layer` computes, ascending."""
        return np.flatnonzero(self.counts[number, layer]) + layer * self.experts


def of_tokens(chosen: NDArray[np.integer], experts: int, passes: Sequence[int] | None = None) -> Trace:
    """The trace of tokens, `chosen` (tokens, layers, active): the expert numbers of each token.

    `passes` are the numbers of tokens that each pass takes, one by default; their sum must be the number of tokens.
    Raises ValueError.
    """
    tokens, layers, active = chosen.shape
    if chosen.min() < 0 or chosen.max() >= experts:
        raise ValueError(f"experts {chosen.min()} to {chosen.max()} of {experts}")
    lengths = np.ones(tokens, int) if passes is None else np.asarray(passes)
    if lengths.sum() != tokens or (lengths < 1).any():
        raise ValueError(f"passes of {lengths.sum()} tokens for {tokens}")
    number = np.repeat(np.arange(len(lengths)), lengths)
    counts = np.zeros((len(lengths), layers, experts), np.int32)
    np.add.at(counts, (number[:, None, None], np.arange(layers)[None, :, None], chosen), 1)
    return Trace(counts, active)
