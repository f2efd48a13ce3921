"""What a quantizer reads: a model as named tensors of float rows, however it is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runtime.gguf.tensor_name import NamedTensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Shaped:
    """What follows from a shape in ggml order, the row length first."""

    __slots__ = ()
    shape: tuple[int, ...]

    @property
    def row_length(self) -> int:
        return self.shape[0]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class TensorSpec(Shaped, NamedTensor):
    """One tensor of the model to write: its GGUF name, its shape in ggml order (the row length first), and the type in
    which the source has it ("BF16", "F16", "F32", "F8_E4M3", "Q8_0", ...)."""

    name: str
    shape: tuple[int, ...]
    stored: str


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One entry of a GGUF's metadata: `encoded` is the value type and the value as the file holds them."""

    key: str
    encoded: bytes


class Source(Protocol):
    """A model to convert or quantize. Tensors and metadata are in the order in which the file will have them."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read: it must not change or be overwritten meanwhile."""
        ...

    @property
    def architecture(self) -> str: ...
    @property
    def tensors(self) -> tuple[TensorSpec, ...]: ...
    @property
    def metadata(self) -> tuple[KeyValue, ...]:
        """Everything but `general.file_type`, `general.quantization_version` and `split.*`, which the writer sets."""
        ...

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """`count` rows from row `first` on, as (count, row_length). Rows run over all dimensions but the first.

        Called from several threads at once.
        """
        ...
