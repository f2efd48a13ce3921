"""Reads texts with a model whose weights are replaced in memory, without writing a file."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import EngineFailed
from runtime.base.run import Run
from runtime.llama.defaults import LOAD_NONE
from runtime.llama.graph import GraphNode, Observer

_SOURCES = 2  # of a node, where weights are: a product and a lookup have theirs in the first, a sum in the second


class EditedScorer(Observer):
    """A Scorer that can replace rows of weights in float32 or float16, each in its own memory and not the file's."""

    def __init__(self, path: Path, *, window: int, run: Run | None = None) -> None:
        self._wanted: Container[str] = ()
        # Of one name there are two where the output matrix is the embedding and lies in another memory.
        self._weights: dict[str, dict[int, GraphNode]] = {}
        super().__init__(path, self._look, lambda _: True, window=window, run=run)

    def find(self, names: Sequence[str], tokens: Sequence[int]) -> None:
        """Find the weights called `names` while some tokens are read. Raises EngineFailed if one does not appear."""
        self._wanted = frozenset(names)
        for _ in self.observe(tokens):
            pass
        self._wanted = ()
        if missing := [name for name in names if name not in self._weights]:
            raise EngineFailed(f"the engine does not show the weight {missing[0]}, so it cannot be replaced")

    def replace(self, name: str, first: int, rows: NDArray[np.float32]) -> None:
        """Replace rows from number `first` on of a weight that was found. Raises EngineFailed where that is not
        possible."""
        for weight in self._weights[name].values():
            weight.overwrite_rows(first, rows)

    def _look(self, node: GraphNode) -> bool:
        if self._wanted:
            for number in range(_SOURCES):
                if (source := node.source_or_none(number)) is not None:
                    # A copy on another device has another name and is made again from the weight in each pass.
                    name = source.own_name
                    if name in self._wanted:
                        self._weights.setdefault(name, {})[source.identity] = source
        return False

    def _model_params(self, **given: Any) -> Any:
        # Not the mapped file, which cannot be written, and not in the order of a faster kernel.
        return super()._model_params(load_mode=LOAD_NONE, use_extra_bufts=False, **given)
