"""Sums x x^T over the inputs x of a model's matrices, as far as they fit into memory together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quant.measure.graph_cuts import PRODUCTS
from quant.measure.routers import Node
from quant.round.moments import Part
from quant.round.watch import Watch, unwatched
from runtime.base.errors import EngineFailed

_OUTPUT = "output.weight"
BLOCK = 768  # columns of a product; fixed, because sums in other blocks differ in the last digit
_WORTH_THREADS = 1 << 24  # multiplications

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Input:
    """A tensor of the graph that `weights` are multiplied with: `slices` moments of `columns` each. The first of
    `weights` is multiplied `uses` times in a pass, from node `node` to node `last`: a layer may run several times."""

    columns: int
    slices: int
    node: int
    weights: list[str] = field(default_factory=list)
    uses: int = 1
    last: int = 0

    def __post_init__(self) -> None:
        self.last = max(self.last, self.node)

    @property
    def slice_bytes(self) -> int:
        return 4 * self.columns * self.columns


@dataclass(frozen=True, slots=True)
class Share:
    """Slices `first` to `end` of an input, which are collected together."""

    input: Input
    first: int
    end: int

    @property
    def weight(self) -> str:
        """The matrix whose product shows the input."""
        return self.input.weights[0]

    @property
    def bytes(self) -> int:
        return (self.end - self.first) * self.input.slice_bytes


class InputFinder:
    """Finds the inputs in one pass, from the order in which the engine asks for the nodes."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.products: dict[int, str] = {}  # the matrix of each product, by the number of its node
        self.shapes: dict[str, tuple[int, int]] = {}  # the third and fourth axis of each matrix
        self._of: dict[tuple[int, ...], Input] = {}
        self._known: dict[str, Input] = {}
        self._nodes = 0

    def wants(self, node: Node) -> bool:
        number, self._nodes = self._nodes, self._nodes + 1
        if node.operation not in PRODUCTS:
            return False
        weight, rows = node.source(0), node.source(1)
        name = weight.name
        # An embedding is looked up, so its rows cannot be corrected, also where it is the output matrix.
        if not (name.startswith("blk.") or name == _OUTPUT) or not rows.is_float32:
            return False
        self.products[number] = name
        self.shapes[name] = weight.shape[2], weight.shape[3]
        if (known := self._known.get(name)) is not None:
            if name == known.weights[0]:
                known.uses += 1
                known.last = number
            return False
        slices = weight.shape[2] * weight.shape[3]
        chosen = node.source(2).identity if node.operation == "MUL_MAT_ID" else 0
        key = (rows.identity, chosen, slices, weight.shape[0])
        if key not in self._of:
            self._of[key] = Input(weight.shape[0], slices, number)
            self.inputs.append(self._of[key])
        self._of[key].weights.append(name)
        self._known[name] = self._of[key]
        return False


def missing(inputs: Sequence[Input], parts: Sequence[Part]) -> list[Share]:
    """The slices of which no part has the moments."""
    there: dict[str, set[int]] = {}
    for part in parts:
        there.setdefault(part.weights[0], set()).update(range(part.first, part.first + len(part.counts)))
    found = []
    for each in inputs:
        first = None
        for number in range(each.slices + 1):
            wanted = number < each.slices and number not in there.get(each.weights[0], ())
            if wanted and first is None:
                first = number
            if not wanted and first is not None:
                found.append(Share(each, first, number))
                first = None
    return found


def turns(shares: Sequence[Share], memory: int) -> Iterator[list[Share]]:
    """Divides shares into groups that are collected one after the other, each within `memory` bytes or of one slice."""
    group: list[Share] = []
    room = memory
    for share in shares:
        each, first = share.input, share.first
        while first < share.end:
            fitting = min(max(room, 0) // each.slice_bytes, share.end - first)
            # A few experts at the end of a group would only cost another part: they wait for the next group.
            if group and (fitting == 0 or (fitting < share.end - first and share.bytes <= memory)):
                yield group
                group, room = [], memory
                continue
            count = max(fitting, 1)
            group.append(Share(each, first, first + count))
            room -= count * each.slice_bytes
            first += count
    if group:
        yield group


class MomentCollector:
    """Sums the moments of a group of inputs."""

    def __init__(self, shares: Sequence[Share], threads: Executor | None = None) -> None:
        """Without `threads` the thread that calls computes. The sums are the same with any number."""
        self._shares = {share.weight: share for share in shares}
        self._threads = threads
        self.sums = {share.weight: _zeros(share) for share in shares}
        self.counts = {share.weight: np.zeros(share.end - share.first, np.int64) for share in shares}

    def wants(self, node: Node) -> bool:
        return node.operation in PRODUCTS and node.source(0).name in self._shares

    def sees(self, node: Node) -> None:
        """Add the input of a node."""
        share = self._shares[node.source(0).name]
        work: list[tuple[Floats, Floats]] = []
        for number, rows in _by_slice(node, share):
            place = number - share.first
            work.append((self.sums[share.weight][place], rows))
            self.counts[share.weight][place] += len(rows)
        add_products(work, self._threads)

    def parts(self) -> Iterator[tuple[Part, Floats]]:
        """What was summed. Raises EngineFailed for inputs that are not finite."""
        for name, share in self._shares.items():
            sums = self.sums[name]
            if not np.isfinite(np.einsum("scc->sc", sums)).all():
                raise EngineFailed(
                    f"the input of {name} is not finite, so it has no moments",
                    hint="use the original weights in BF16 or F32: F16 may overflow",
                )
            for each in sums:
                mirror(each)
            file = f"{name}.{share.first}.npy"
            counts = tuple(map(int, self.counts[name]))
            yield Part(file, tuple(share.input.weights), share.input.columns, share.first, counts), sums


def add_products(work: Sequence[tuple[Floats, Floats]], threads: Executor | None, watch: Watch = unwatched) -> None:
    """Add x x^T for each row x to sums, for each pair (sums, rows): in their blocks on and above the diagonal."""
    pieces = [
        (sums, rows, first, second)
        for sums, rows in work
        for first in range(0, len(sums), BLOCK)
        for second in range(first, len(sums), BLOCK)
    ]
    much = sum(rows.size * len(sums) for sums, rows in work) > _WORTH_THREADS
    if threads is None or not much or len(pieces) < 2:
        for piece in pieces:
            _add(piece)
            watch(0)
    else:
        for _ in threads.map(_add, pieces):  # raises what one of them raises
            watch(0)


def _add(piece: tuple[Floats, Floats, int, int]) -> None:
    sums, rows, first, second = piece
    left, right = rows[:, first : first + BLOCK], rows[:, second : second + BLOCK]
    sums[first : first + BLOCK, second : second + BLOCK] += left.T @ right


def mirror(sums: Floats, watch: Watch = unwatched) -> None:
    """Copy the blocks above the diagonal to below it."""
    for first in range(0, len(sums), BLOCK):
        end = first + BLOCK
        sums[end:, first:end] = sums[first:end, end:].T
        watch(0)


def _zeros(share: Share) -> Floats:
    columns = share.input.columns
    return np.zeros((share.end - share.first, columns, columns), np.float32)


def _by_slice(node: Node, share: Share) -> Iterator[tuple[int, Floats]]:
    """The inputs of each slice of a share, (inputs, columns)."""
    weight, values = node.source(0), node.source(1).values()
    if node.operation == "MUL_MAT_ID":
        chosen = node.source(2).values()[0, 0]
        rows = values[0]
        for expert in range(share.first, share.end):
            token, place = np.nonzero(chosen == expert)
            if len(token):
                yield expert, np.ascontiguousarray(rows[token, place % rows.shape[1]])
        return
    yield from by_slice(values, weight.shape[2], weight.shape[3], range(share.first, share.end))


def by_slice(values: Floats, depth: int, width: int, numbers: Iterable[int]) -> Iterator[tuple[int, Floats]]:
    """The inputs of some slices of a weight whose third and fourth axis are `depth` and `width`, (inputs, columns)."""
    batches, heads, count, columns = values.shape
    each = values.reshape(batches // width, width, heads // depth, depth, count, columns)
    for number in numbers:
        own = each[:, number // depth, :, number % depth]
        yield number, np.ascontiguousarray(own).reshape(-1, columns)
