"""Runs a part of a model's graph: from kept hidden states, or from the text, up to the next cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from quant.measure.graph_cuts import PRODUCTS, Cut, Graph, Lightness, Step
from quant.measure.routers import Node
from runtime.base.errors import EngineFailed


class PartNode(Node, Protocol):
    """A node whose memory can be kept and given back, as runtime.llama.GraphNode."""

    @property
    def root(self) -> int: ...
    @property
    def source_roots(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    def leave_out(self) -> None: ...
    def take_in(self) -> None: ...
    def content(self) -> bytes: ...
    def fill(self, content: bytes, /) -> None: ...


class Watcher(Protocol):
    """Sees the inputs of matrices."""

    def wants(self, node: Node, /) -> bool: ...
    def sees(self, node: Node, /) -> object: ...


class GraphDiffers(EngineFailed):
    """A pass has other nodes than the one that was cut."""


class Reading:
    """Reads the nodes of a pass, which are not computed. `restore` follows the pass."""

    def __init__(self, also: Callable[[Node], object]) -> None:
        """`also` is called with each node."""
        self.steps: list[Step] = []
        self._also = also
        self._left_out: list[PartNode] = []

    def wants(self, node: PartNode) -> bool:
        self._also(node)
        operation, work = node.operation, 0
        if operation in PRODUCTS:
            work = node.source(0).shape[0] * _count(node.shape)
        self.steps.append(Step(node.name, operation, node.identity, node.root, node.source_roots, node.size, work))
        node.leave_out()
        self._left_out.append(node)
        return False

    def sees(self, node: PartNode) -> bool:
        return True

    def restore(self) -> None:
        for node in self._left_out:
            node.take_in()
        self._left_out.clear()


class PartialPass:
    """Computes from the cut `start` (None: from the text) as far as `watcher` and the cut `end` need it. The last
    product that `watcher` wants is not computed where nothing behind it is needed.

    `load` gives so many bytes that an earlier part kept, in the order in which it gave them to `save`."""

    def __init__(
        self,
        graph: Graph,
        watcher: Watcher,
        *,
        last: int,
        uses: int,
        start: Cut | None = None,
        end: Cut | None = None,
        load: Callable[[int], bytes] = bytes,
        save: Callable[[bytes], Any] = len,
        same_nodes: bool = False,
    ) -> None:
        """`watcher` wants `uses` nodes in a pass; the last one has the number `last`.

        `same_nodes`: each pass has exactly the nodes of the graph, which need not be looked at one by one."""
        self._same_nodes = same_nodes
        self._graph, self._watcher, self._start, self._end = graph, watcher, start, end
        self._uses, self._load, self._save = uses, load, save
        self._stop = graph.end(last)
        self._names = frozenset((*(start.kept if start else ()), *(end.kept if end else ())))
        self._begin()

    def _begin(self) -> None:
        self._nodes: dict[str, PartNode] = {}
        self._left_out: list[PartNode] = []
        self._last: PartNode | None = None
        self._lightness, self._number = Lightness(), -1
        self._skipping = self._start is not None
        self._left = self._uses
        self._saving = self._end is not None
        self._waiting = self._stop is not None

    @property
    def _done(self) -> bool:
        return not (self._skipping or self._left or self._saving or self._waiting)

    def wants(self, node: PartNode) -> bool:
        name = node.name
        if name == self._graph.first:  # the engine may cut a batch in two
            self._begin()
        if name in self._names:
            self._nodes[name] = node
        if self._skipping:
            assert self._start is not None
            if not self._is_light(node, name):
                node.leave_out()
                self._left_out.append(node)
            return name == self._start.name
        if self._done:
            return False
        wanted = self._left > 0 and self._watcher.wants(node)
        if wanted and self._left == 1 and not self._saving and self._stop is None:
            node.leave_out()  # the pass ends here: its sources are needed, and not the product
            self._last = node
        return wanted or (self._end is not None and name == self._end.name) or name == self._stop

    def _is_light(self, node: PartNode, name: str) -> bool:
        if not self._same_nodes:
            return self._lightness.is_light(node.operation, node.root, node.source_roots)
        self._number += 1
        if not self._graph.has(self._number, name):
            raise GraphDiffers("the graph of the model changes with the text")
        return self._graph.light[self._number]

    def sees(self, node: PartNode) -> bool:
        """Take in a node; False once nothing behind it is needed."""
        if self._skipping:
            self._fill()
            return True
        name = node.name
        if self._last is not None:
            self._last.take_in()
            self._last = None
        if self._left and self._watcher.wants(node):
            self._watcher.sees(node)
            self._left -= 1
        if self._end is not None and name == self._end.name:
            for each in self._end.kept:
                self._save(self._node(each).content())
            self._saving = False
        # A node that ends the pass for the sake of caches counts once everything else is there.
        if name == self._stop and not self._left:
            self._waiting = False
        return not self._done

    def finish_pass(self) -> None:
        """After each pass. Raises GraphDiffers if it had not all nodes of the one that was cut."""
        if (self._start is not None and (self._skipping or self._left)) or self._saving:
            raise GraphDiffers("the graph of the model changes with the text")

    def _fill(self) -> None:
        assert self._start is not None
        for node in self._left_out:
            node.take_in()
        for name in self._start.kept:
            node = self._node(name)
            node.fill(self._load(node.size))
        self._skipping = False

    def _node(self, name: str) -> PartNode:
        if name not in self._nodes:
            raise GraphDiffers(f"the graph of the model has no {name} for this text")
        return self._nodes[name]


def _count(shape: Sequence[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
