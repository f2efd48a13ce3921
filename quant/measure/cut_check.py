"""Proves on a short text that a part of the graph computes the same from kept values as the whole model does."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from quant.measure.graph_cuts import PRODUCTS, Cut
from quant.measure.partial_pass import PartNode
from quant.measure.routers import Node

# Relative difference of the inputs of a matrix. On a CPU they are the same; kernels of a GPU may add in another order.
_SAME = 1e-3


class Rows:
    """Keeps the inputs of matrices, for a comparison: the first of each, where a layer runs several times."""

    def __init__(self, weights: Sequence[str]) -> None:
        self._wanted = frozenset(weights)
        self._of: dict[str, NDArray[np.float32]] = {}

    def wants(self, node: Node) -> bool:
        return node.operation in PRODUCTS and node.source(0).name in self._wanted

    def sees(self, node: Node) -> None:
        name = node.source(0).name
        if name not in self._of:
            self._of[name] = node.source(1).values().copy()

    @property
    def complete(self) -> bool:
        return len(self._of) == len(self._wanted)

    def like(self, whole: Rows) -> bool:
        """Whether all inputs here are those of the whole model."""
        return all(_near(rows, whole._of[name]) for name, rows in self._of.items())


class WholePass:
    """Keeps what the whole model computes: the inputs of `weights`, and the values that each of `cuts` keeps. `behind`
    is called at each cut."""

    def __init__(self, weights: Sequence[str], cuts: Iterable[Cut], behind: Callable[[], object] = int) -> None:
        self.rows = Rows(weights)
        self._cuts = {cut.name: cut for cut in cuts}
        self._kept = {name for cut in self._cuts.values() for name in cut.kept}
        self._nodes: dict[str, PartNode] = {}
        self._content: dict[str, bytes] = {}
        self._behind = behind

    def wants(self, node: PartNode) -> bool:
        name = node.name
        if name in self._kept:
            self._nodes[name] = node
        return name in self._cuts or self.rows.wants(node)

    def sees(self, node: PartNode) -> bool:
        if (cut := self._cuts.get(node.name)) is not None:
            self._content[cut.name] = b"".join(self._nodes[name].content() for name in cut.kept)
            self._behind()
        if self.rows.wants(node):
            self.rows.sees(node)
        return not self.rows.complete

    def content(self, cut: Cut) -> io.BytesIO:
        return io.BytesIO(self._content[cut.name])


def _near(rows: NDArray[np.float32], whole: NDArray[np.float32]) -> bool:
    return rows.shape == whole.shape and bool(np.linalg.norm(rows - whole) <= _SAME * np.linalg.norm(whole))
