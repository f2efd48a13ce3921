"""The weights that stay on the disk until they are used, cut into units. Pure.

A unit is read and dropped together: one routed expert of a layer (its slices of gate, up and down), or a whole layer of
a dense model.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from runtime.base.errors import UsageError
from runtime.from_disk.reader import PAGE
from runtime.gguf.card import ModelCard, layer_count
from runtime.gguf.header import TensorInfo


@dataclass(frozen=True, slots=True)
class FromDisk:
    """`memory`: the bytes that units share with the working buffers of a pass, which take `row_bytes` for each of its
    tokens. `layers`: the layers of a dense model that stay on the disk; empty for the routed experts of all layers.
    `seed`: the expected use of each unit, highest for the one to keep longest; empty if nothing is known. `spare`:
    units also take the memory that is free beyond so many bytes, as long as nobody else does; None: they do not."""

    memory: int
    layers: tuple[int, ...] = ()
    seed: tuple[float, ...] = ()
    row_bytes: int = 0
    spare: int | None = None

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise UsageError(
                f"weights from the disk need memory, not {self.memory} bytes",
                hint="close other programs, or choose a smaller quantization",
            )

    def room(self, tokens: int) -> int:
        """The most bytes of units in memory during a pass of so many tokens."""
        return self.memory - tokens * self.row_bytes


@dataclass(frozen=True, slots=True)
class Stack:
    """One tensor: `count` slices of `size` bytes each, from byte `offset` of the file with number `file`.

    `index` is the place of its layer in `Units.layers`. A tensor of a dense layer is one slice."""

    name: str
    index: int
    file: int
    offset: int
    size: int
    count: int


@dataclass(frozen=True)
class Units:
    """The units of a model: `experts` for each of `layers`, the numbers of layers in the order of computing.

    The unit of an expert has the number index * `experts` + expert, where `index` is the place of its layer.
    `routed`: a router chooses the units of a layer; otherwise a layer has one unit, which every token uses.
    """

    layers: tuple[int, ...]
    experts: int
    stacks: tuple[Stack, ...]
    routed: bool

    @property
    def count(self) -> int:
        return len(self.layers) * self.experts

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The bytes of a unit in each layer; all units of a layer are alike."""
        sizes = [0] * len(self.layers)
        for stack in self.stacks:
            sizes[stack.index] += stack.size
        return tuple(sizes)

    @cached_property
    def paged_sizes(self) -> tuple[int, ...]:
        """The memory of a unit in each layer: whole pages, and one more where a slice begins within a page."""
        sizes = [0] * len(self.layers)
        for stack in self.stacks:
            sizes[stack.index] += (-(-stack.size // PAGE) + 1) * PAGE
        return tuple(sizes)

    @property
    def bytes(self) -> int:
        return sum(self.sizes) * self.experts


def units_of(card: ModelCard, layers: Collection[int] = ()) -> Units:
    """The routed experts of all layers, or the matrices of the dense `layers`. No layer predicts ahead (MTP)."""
    chosen = [each for each in card.tensors if (_is_in(each, layers) if layers else _is_routed(each, card))]
    numbers = tuple(sorted({each.layer for each in chosen if each.layer is not None}))
    index = {layer: place for place, layer in enumerate(numbers)}
    experts = 1 if layers else card.experts
    stacks = tuple(
        Stack(each.name, index[each.layer], each.file, each.offset, each.size // experts, experts)
        for each in chosen
        if each.layer is not None
    )
    return Units(numbers, experts, stacks, routed=not layers)


def resident(card: ModelCard, units: Units) -> tuple[TensorInfo, ...]:
    """The tensors that stay in memory. Layers that predict ahead (MTP) are not loaded."""
    names, layers = {stack.name for stack in units.stacks}, layer_count(card)
    return tuple(
        each for each in card.tensors if each.name not in names and (each.layer is None or each.layer < layers)
    )


def _is_routed(tensor: TensorInfo, card: ModelCard) -> bool:
    """Biases and scales of experts are small, and stay in memory."""
    layer = tensor.layer
    is_matrix = tensor.is_expert_stack and len(tensor.shape) == 3 and tensor.shape[2] == card.experts
    return is_matrix and layer is not None and layer < layer_count(card)


def _is_in(tensor: TensorInfo, layers: Collection[int]) -> bool:
    return tensor.layer in layers and len(tensor.shape) == 2 and tensor.shape[1] > 1
