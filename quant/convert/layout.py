"""The layout of an architecture: the tensors of a checkpoint, and how the tensors of the GGUF are made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import gguf

from quant.convert.config import Config
from runtime.base.errors import Incompatible

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quant.sources.checkpoint import Checkpoint

    Rows = NDArray[np.float32]


class Part(Protocol):
    """Some rows of a tensor of the GGUF, made of one tensor of the checkpoint (or of none, when `source` is "")."""

    @property
    def source(self) -> str: ...
    @property
    def rows(self) -> int: ...

    def read(self, checkpoint: Checkpoint, first: int, out: Rows) -> None:
        """Fill `out`, (count, row length) and contiguous, with this part's rows from `first` on."""
        ...


@dataclass(frozen=True, slots=True)
class Slice:
    """`rows` rows of `source` from row `begin` on, as they are."""

    source: str
    begin: int
    rows: int

    def read(self, checkpoint: Checkpoint, first: int, out: Rows) -> None:
        checkpoint.read(self.source, self.begin + first, len(out), out)


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Rows of `heads` heads, the rotary halves of each interleaved: row 2j + k of a head was row k * half + j.

    Llama's checkpoints rotate element j with element j + half; ggml's "norm" rotation wants pairs side by side."""

    source: str
    rows: int
    heads: int

    def read(self, checkpoint: Checkpoint, first: int, out: Rows) -> None:
        import numpy as np

        length = self.rows // self.heads
        begin, end = first // length * length, -(-(first + len(out)) // length) * length
        heads = np.empty((end - begin, out.shape[1]), np.float32)
        checkpoint.read(self.source, begin, end - begin, heads)
        row = np.arange(first, first + len(out))
        within = row % length
        np.take(heads, row - within + within % 2 * (length // 2) + within // 2 - begin, axis=0, out=out)


@dataclass(frozen=True, slots=True)
class InterleavedElements:
    """The same for a bias: one row of `heads` times the elements of a head."""

    source: str
    heads: int
    rows: int = 1

    def read(self, checkpoint: Checkpoint, first: int, out: Rows) -> None:
        checkpoint.read(self.source, first, 1, out)
        out[...] = out.reshape(self.heads, 2, -1).swapaxes(1, 2).reshape(out.shape)


@dataclass(frozen=True, slots=True)
class Transposed:
    """Columns of the `width` rows of `source` from row `begin` on: row j of this part is their column j."""

    source: str
    begin: int
    rows: int
    width: int

    def read(self, checkpoint: Checkpoint, first: int, out: Rows) -> None:
        import numpy as np

        block = np.empty((self.width, self.rows), np.float32)
        checkpoint.read(self.source, self.begin, self.width, block)
        out[...] = block[:, first : first + len(out)].T


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers that follow from the configuration, as one row."""

    values: tuple[float, ...]
    source: str = ""
    rows: int = 1

    def read(self, checkpoint: Checkpoint, first: int, out: Rows) -> None:
        out[0] = self.values


@dataclass(frozen=True, slots=True)
class Target:
    """One tensor of the GGUF. `after` names what llama.cpp's converter has seen when it writes this one, which decides
    the order; an `optional` one is left out when the checkpoint does not have it."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    after: tuple[str, ...]
    optional: bool = False


class Layout:
    """Collects the tensors of one architecture. Shapes given here are in the checkpoint's order, the row last."""

    def __init__(self, architecture: str, config: Config) -> None:
        self.architecture = architecture
        self.config = config
        self.targets: list[Target] = []
        self.sources: dict[str, tuple[int, ...]] = {}
        self._names = _name_map(architecture, config.layers + config.mtp_layers)

    def plain(self, source: str, *shape: int, optional: bool = False, name: str = "") -> None:
        """Add a tensor that is copied unchanged; `name` is for one that gguf's table does not name."""
        self.sources[source] = shape
        part = Slice(source, 0, math.prod(shape[:-1]))
        self.targets.append(Target(name or self._name(source), shape[::-1], (part,), (source,), optional))

    def rotary(self, source: str, heads: int, *shape: int) -> None:
        """A projection or bias whose rows are rotated in pairs."""
        if shape[0] % (2 * heads):
            raise self.config.bad(f"{heads} heads of {shape[0] // heads} elements cannot be rotated in pairs")
        self.sources[source] = shape
        part = Interleaved(source, shape[0], heads) if len(shape) > 1 else InterleavedElements(source, heads)
        self.targets.append(Target(self._name(source), shape[::-1], (part,), (source,)))

    def stacks(self, stacks: Iterable[tuple[str, list[str], int, int]]) -> None:
        """Stacks of experts of one layer: (name of the stack, names of its matrices, rows and row length of each).

        They are written one after the other when the last matrix of the last of them has been seen."""
        listed = list(stacks)
        after = tuple(source for _, sources, _, _ in listed for source in sources)
        for name, sources, rows, width in listed:
            self.sources.update((source, (rows, width)) for source in sources)
            parts = tuple(Slice(source, 0, rows) for source in sources)
            self.targets.append(Target(self._name(name), (width, rows, len(sources)), parts, after))

    def compressed_keys_and_values(self, source: str, heads: int, key: int, value: int, rank: int) -> None:
        """MLA's kv_b, per head `key` rows for the keys and `value` rows for the values, each of `rank` elements, as the
        two matrices of the absorbed form: the keys' transposed per head (src/models/deepseek2.cpp of llama.cpp)."""
        both = key + value
        self.sources[source] = (heads * both, rank)
        keys = tuple(Transposed(source, head * both, rank, key) for head in range(heads))
        values = tuple(Slice(source, head * both + key, value) for head in range(heads))
        name = source.replace("kv_b_proj", "{}_b_proj")
        self.targets.append(Target(self._name(name.format("k")), (key, rank, heads), keys, (source,)))
        self.targets.append(Target(self._name(name.format("v")), (rank, value, heads), values, (source,)))

    def values(self, name: str, values: tuple[float, ...]) -> None:
        """A tensor that is not in the checkpoint."""
        self.targets.append(Target(name, (len(values),), (Values(values),), ()))

    def _name(self, source: str) -> str:
        """The name in GGUF, from gguf's own table."""
        name = self._names.get_name(
            source.replace("e_score_correction_bias", "e_score_correction.bias"), try_suffixes=(".weight", ".bias")
        )
        if name is None:
            raise Incompatible(f"{self.config.path}: {self.architecture} has no place for the tensor {source!r}")
        return str(name)


def _name_map(architecture: str, layers: int) -> Any:
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return gguf.get_tensor_name_map(number, layers)
