"""Sums y y^T and (x - y) y^T over the inputs of a matrix: x in the original model, y in the file as it is so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.measure.graph_cuts import PRODUCTS
from quant.measure.moment_sums import BLOCK, Input, add_products, by_slice, mirror
from quant.measure.routers import Node
from quant.round.cross import Inputs
from quant.round.moment import Moment
from quant.round.watch import Watch, unwatched
from runtime.base.errors import EngineFailed

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The input of a matrix in one pass, with four axes in numpy's order, and the experts of each token, (tokens,
    places), if the matrix has experts."""

    rows: Floats
    chosen: NDArray[np.int32] | None


class SeenInputs:
    """Keeps the inputs of matrices in the passes of a group of texts."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._seen: dict[str, list[Seen]] = {each.weights[0]: [] for each in inputs}

    def wants(self, node: Node) -> bool:
        return node.operation in PRODUCTS and node.source(0).name in self._seen

    def sees(self, node: Node) -> None:
        chosen = node.source(2).values()[0, 0].copy() if node.operation == "MUL_MAT_ID" else None
        self._seen[node.source(0).name].append(Seen(node.source(1).values().copy(), chosen))

    def of(self, weight: str) -> list[Seen]:
        return self._seen[weight]


class CrossSums:
    """The sums for the slices of an input."""

    def __init__(self, each: Input, shape: tuple[int, int]) -> None:
        """`shape` are the third and fourth axis of the matrix."""
        self.weight, self._slices, self._shape = each.weights[0], each.slices, shape
        self._second = np.zeros((each.slices, each.columns, each.columns), np.float32)
        self._cross = np.zeros_like(self._second)
        self._differs = np.zeros(each.slices, np.bool_)
        self._counts = np.zeros(each.slices, np.int64)
        self._moments: dict[int, Inputs | None] = {}
        self._lock = Lock()

    def add(
        self,
        original: Sequence[Seen],
        rounded: Sequence[Seen],
        threads: Executor | None,
        watch: Watch = unwatched,
    ) -> None:
        """Add the inputs of some passes, of which both streams had the same tokens."""
        for one, other in zip(original, rounded, strict=True):
            second: list[tuple[Floats, Floats]] = []
            cross: list[tuple[Floats, Floats, Floats]] = []
            for number, x, y, paired in _pairs(one, other, self._slices, self._shape):
                second.append((self._second[number], y))
                self._counts[number] += len(y)
                own = y if paired is None else y[paired]
                if not np.array_equal(x, own):
                    cross.append((self._cross[number], x - own, own))
                    self._differs[number] = True
            add_products(second, threads, watch)
            _add_mixed(cross, threads, watch)

    def finished(self, watch: Watch = unwatched) -> CrossSums:
        """These sums, once everything was added. Raises EngineFailed for inputs that are not finite."""
        if not np.isfinite(np.einsum("scc->sc", self._second)).all():
            raise EngineFailed(
                f"the input of {self.weight} is not finite, so it has no moments",
                hint="use the original weights in BF16 or F32: F16 may overflow",
            )
        for each in self._second:
            mirror(each, watch)
        return self

    def inputs(self, number: int, watch: Watch) -> Inputs | None:
        """The inputs of a slice, for rounding; None where none were seen. Several threads may ask."""
        with self._lock:
            if number not in self._moments:
                self._moments[number] = self._made(number, watch)
            return self._moments[number]

    def _made(self, number: int, watch: Watch) -> Inputs | None:
        count = int(self._counts[number])
        try:
            moment = Moment(self._second[number], count, watch, in_place=True)
        except ValueError:  # all inputs were zero
            return None
        if not self._differs[number]:
            return Inputs(moment)
        self._cross[number] /= np.float32(count)
        return Inputs(moment, self._cross[number])


def _pairs(
    original: Seen, rounded: Seen, slices: int, shape: tuple[int, int]
) -> Iterator[tuple[int, Floats, Floats, NDArray[np.bool_] | None]]:
    """For each slice its inputs y, those x of the original model, and which of y have an x (None: all).

    A token that takes an expert in the file alone has no x there, if each expert has an input of its own."""
    if rounded.chosen is None or original.chosen is None:
        depth, width = shape
        parts = zip(*(by_slice(each.rows, depth, width, range(slices)) for each in (original, rounded)), strict=True)
        for (number, x), (_, y) in parts:
            yield number, x, y, None
        return
    all_x, all_y = original.rows[0], rounded.rows[0]
    for expert in range(slices):
        token, place = np.nonzero(rounded.chosen == expert)
        if not len(token):
            continue
        y = np.ascontiguousarray(all_y[token, place % all_y.shape[1]])
        if all_y.shape[1] == 1:
            yield expert, np.ascontiguousarray(all_x[token, 0]), y, None
            continue
        also = original.chosen[token] == expert
        paired = also.any(axis=1)
        yield expert, np.ascontiguousarray(all_x[token[paired], also[paired].argmax(axis=1)]), y, paired


def _add_mixed(work: Sequence[tuple[Floats, Floats, Floats]], threads: Executor | None, watch: Watch) -> None:
    """Add left^T right to sums, for each (sums, left, right), in blocks: the same with any number of threads."""
    pieces = [
        (sums[first : first + BLOCK, second : second + BLOCK], left[:, first : first + BLOCK],
         right[:, second : second + BLOCK])
        for sums, left, right in work
        for first in range(0, len(sums), BLOCK)
        for second in range(0, len(sums), BLOCK)
    ]  # fmt: skip
    add: Callable[..., Any] = map if threads is None else threads.map
    for _ in add(_add, pieces):
        watch(0)


def _add(piece: tuple[Floats, Floats, Floats]) -> None:
    sums, left, right = piece
    sums += left.T @ right
