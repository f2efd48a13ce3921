"""An Observer with two contents for some weights: those of the file, and others that are put beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import EngineFailed
from runtime.base.run import Run
from runtime.gguf.types import GgmlType
from runtime.llama.graph import GraphNode
from runtime.llama.mapped_observer import MappedObserver

_SOURCES = 2  # of a node, where weights are: a product and a lookup have theirs in the first, a sum in the second


class SwitchedObserver(MappedObserver):
    """A MappedObserver that computes with the weights of the file, or with those that were put in their place.

    Nothing is copied when it switches: the engine's tensor points to the one memory or to the other."""

    # There are many passes of few nodes, and each looks at all that it leaves out.
    _rows = 1024

    def __init__(
        self,
        path: Path,
        wants: Callable[[GraphNode], bool],
        sees: Callable[[GraphNode], bool],
        *,
        window: int,
        sequences: int = 1,
        run: Run | None = None,
    ) -> None:
        self._found: dict[str, dict[int, GraphNode]] = {}
        self._others: dict[str, tuple[NDArray[np.uint8], GgmlType]] = {}
        self._of_file: dict[int, tuple[GraphNode, tuple[int, tuple[int, ...], int]]] = {}
        super().__init__(path, wants, sees, window=window, sequences=sequences, run=run)

    def look(self, node: GraphNode) -> None:
        """Take in the weights that a node reads. To be called with all nodes of a pass, before anything is put."""
        for number in range(_SOURCES):
            if (source := node.source_or_none(number)) is not None and not source.has_source:
                self._found.setdefault(source.own_name, {})[source.identity] = source

    def shows(self, name: str) -> bool:
        """Whether a node reads a weight of this name."""
        return name in self._found

    def put(self, name: str, kind: GgmlType, stored: NDArray[np.uint8]) -> None:
        """Put rows of a type, (rows, bytes of a row), beside the weight called `name`.

        Raises EngineFailed for a weight that no node reads."""
        if name not in self._found:
            raise EngineFailed(f"the engine does not show the weight {name}, so it cannot be replaced")
        self._others[name] = np.ascontiguousarray(stored), kind

    def drop(self, names: Iterable[str]) -> None:
        """Forget what was put beside these weights."""
        for name in names:
            self._others.pop(name, None)

    def use_others(self) -> None:
        """Compute with what was put, where there is something."""
        self.use_file()
        for name, (stored, kind) in self._others.items():
            for tensor in self._found[name].values():
                self._of_file[tensor.identity] = tensor, tensor.lying
                row, (_, height, depth, _) = stored.shape[1], tensor.shape
                strides = kind.width, row, row * height, row * height * depth
                tensor.lie_as((kind.number, strides, int(stored.ctypes.data)))

    def use_file(self) -> None:
        """Compute with the weights of the file."""
        for tensor, lying in self._of_file.values():
            tensor.lie_as(lying)
        self._of_file.clear()

    def close(self) -> None:
        self.use_file()
        super().close()
