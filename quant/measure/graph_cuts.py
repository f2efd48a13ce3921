"""Finds the places where the graph of a model can be cut. Pure.

Behind a cut, layers compute from kept values instead of from the text: the hidden states, and anything else that nodes
behind it read. So a text runs through each layer once, also where the layers take turns.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

PRODUCTS = ("MUL_MAT", "MUL_MAT_ID")
_VIEWS = ("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE")  # ggml_op_is_empty (ggml-impl.h): they compute nothing
_NUMBERED = re.compile(r"(?:node|leaf)_\d+|")  # names that ggml gives: the numbers change with the length of the text
# Only their ratio matters, when a cut that keeps more saves a product: a slow processor and a slow disk.
_PRODUCTS_A_SECOND, _BYTES_A_SECOND = 5e10, 5e8


@dataclass(frozen=True, slots=True)
class Step:
    """A node of the graph. `root` is the identity of the tensor whose memory it uses, `reads` are those of its sources.
    `size` is in bytes, `work` counts the multiplications of a product, for one short text."""

    name: str
    operation: str
    identity: int
    root: int
    reads: tuple[int, ...]
    size: int
    work: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """The place behind the node called `name`, the one with number `index`. Nodes behind it need the values of the
    nodes `kept`: `size` bytes for the short text."""

    index: int
    name: str
    kept: tuple[str, ...]
    size: int


class Lightness:
    """Tells, node by node in the order of a pass, which ones no product leads to: embedding, masks, what caches have
    from earlier passes. Computing them again is cheaper than keeping them."""

    def __init__(self) -> None:
        self._heavy: set[int] = set()

    def is_light(self, operation: str, root: int, reads: Sequence[int]) -> bool:
        if operation not in PRODUCTS and root not in self._heavy and self._heavy.isdisjoint(reads):
            return True
        self._heavy.add(root)
        return False


class Graph:
    """The nodes of one pass, in the order of computing. Later passes have nodes of the same names."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)

    @cached_property
    def first(self) -> str:
        """The name of the first node."""
        return self.steps[0].name

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(f"{each.operation} {each.name}" for each in self.steps).encode()).hexdigest()

    @cached_property
    def _caches(self) -> frozenset[int]:
        """The roots of tensors that are written and are no nodes: KV caches, states of recurrent layers."""
        owners = {step.identity for step in self.steps}
        return frozenset(step.root for step in self.steps if step.operation not in _VIEWS and step.root not in owners)

    def best(self, after: int, before: int) -> Cut | None:
        """The cut from node `after` on from which node `before` is reached fastest; None if there is none."""
        work = [0, *accumulate(step.work for step in self.steps)]
        best = min(
            (index for index in range(max(after, 0), before) if self._is_cut(index)),
            key=lambda index: (
                (work[before] - work[index + 1]) / _PRODUCTS_A_SECOND + 2 * self._crossing[index] / _BYTES_A_SECOND
            ),
            default=None,
        )
        return None if best is None else self.cut(best)

    def cut(self, index: int) -> Cut:
        """The cut behind node `index`."""
        kept = tuple(self.steps[first].name for first, last in self._lives if first <= index < last)
        return Cut(index, self.steps[index].name, kept, self._crossing[index])

    def end(self, index: int) -> str | None:
        """The node to compute up to, if the last one that is needed has the number `index`: None for itself. Within a
        layer the caches may be behind it, and the next part of the same text reads them."""
        if not self._in_cache[index]:
            return None
        for number in range(index + 1, len(self.steps)):
            if not self._in_cache[number] and self._is_named(number):
                return self.steps[number].name
        return self.steps[-1].name

    def _is_cut(self, index: int) -> bool:
        return (
            self._names[self.first] == 1
            and self._is_named(index)
            and not self._in_cache[index]
            and self._crossing[index] > 0
            and not self._unnamed[index]
        )

    def has(self, index: int, name: str) -> bool:
        """Whether there is a node `index` with this name, or with one that ggml gave."""
        return index < len(self._checked) and self._checked[index] in (name, "")

    def is_like(self, other: Graph) -> bool:
        """Whether the other graph has the same nodes, of any lengths."""
        return self._checked == other._checked

    @cached_property
    def _checked(self) -> list[str]:
        return ["" if _NUMBERED.fullmatch(step.name) else step.name for step in self.steps]

    def _is_named(self, index: int) -> bool:
        name = self.steps[index].name
        return self._names[name] == 1 and _NUMBERED.fullmatch(name) is None

    @cached_property
    def _names(self) -> Counter[str]:
        return Counter(step.name for step in self.steps)

    @cached_property
    def _lives(self) -> list[tuple[int, int]]:
        """For each node with values that are not light: its number, and that of the last one that reads or changes
        them."""
        heavy = {step.root for step, light in zip(self.steps, self.light, strict=True) if not light}
        last: dict[int, int] = {}
        for number, step in enumerate(self.steps):
            last |= dict.fromkeys(step.reads, number)
            if step.operation not in _VIEWS:
                last[step.root] = number
        return [(number, last[step.identity]) for number, step in enumerate(self.steps) if step.identity in heavy]

    @cached_property
    def _crossing(self) -> list[int]:
        """Behind each node, the bytes that later ones need."""
        return self._sums([(first, last, self.steps[first].size) for first, last in self._lives])

    @cached_property
    def _unnamed(self) -> list[int]:
        """Behind each node, how many of the values that later ones need have no name of their own."""
        return self._sums([(first, last, 1) for first, last in self._lives if not self._is_named(first)])

    @cached_property
    def _in_cache(self) -> list[int]:
        """Behind each node, how many caches are between their first use and their last one. Light nodes are computed in
        any case, so it is a use when others read what they took from a cache."""
        uses: dict[int, tuple[int, int]] = {}
        taken: dict[int, frozenset[int]] = {root: frozenset((root,)) for root in self._caches}
        for number, (step, light) in enumerate(zip(self.steps, self.light, strict=True)):
            found = frozenset().union(*(taken.get(root, frozenset()) for root in (step.root, *step.reads)))
            if light:
                taken[step.root] = found
                continue
            for root in found:
                uses[root] = uses.get(root, (number, number))[0], number
        return self._sums([(first, last, 1) for first, last in uses.values()])

    @cached_property
    def light(self) -> list[bool]:
        lightness = Lightness()
        return [lightness.is_light(step.operation, step.root, step.reads) for step in self.steps]

    def _sums(self, spans: Sequence[tuple[int, int, int]]) -> list[int]:
        """For each node, the sum of the numbers of all spans that begin with it or before and end behind it."""
        changes = [0] * (len(self.steps) + 1)
        for first, last, number in spans:
            changes[first] += number
            changes[last] -= number
        return list(accumulate(changes))[:-1]
