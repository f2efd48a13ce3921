"""The source of a quantization: a model as named tensors of float rows, in whatever format it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from quant.gguf.keyvalue import KeyValue
from runtime.base.errors import UsageError
from runtime.gguf.tensor_name import NamedTensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Importance = Mapping[str, "NDArray[np.float32]"]


class Shaped:
    """Sizes that follow from a shape in ggml order, which has the row length first."""

    __slots__ = ()
    shape: tuple[int, ...]

    @property
    def row_length(self) -> int:
        return self.shape[0]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def slices(self) -> int:
        """Matrices that are stacked in this tensor (experts, heads). Each has an importance of its own."""
        return math.prod(self.shape[2:])

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class TensorSpec(Shaped, NamedTensor):
    """One tensor of the model to write: its GGUF name, its shape in ggml order (row length first), and the type in
    which the source stores it ("BF16", "F16", "F32", "F8_E4M3", "Q8_0", ...)."""

    name: str
    shape: tuple[int, ...]
    stored: str


class Source:
    """A model to convert or quantize, checked when it was opened: its tensors, its metadata, and rows of its weights.

    `tensors` and `metadata` are in the order in which the file will have them; `metadata` lacks the keys of
    quant.gguf.writer.WRITTEN_HERE. `files` are read later, so they must not change or be overwritten. `importance` is
    what an importance matrix says, by tensor name: the mean squared activation of each column, (slices, row length);
    None without a matrix. `added` is metadata that replaces the source's and comes last.
    """

    def __init__(
        self,
        architecture: str,
        tensors: Iterable[TensorSpec],
        metadata: Iterable[KeyValue] = (),
        *,
        name: str = "model",
        files: Iterable[Path] = (),
    ) -> None:
        self.name = name
        self.architecture = architecture
        self.tensors = tuple(tensors)
        self.metadata = tuple(metadata)
        self.files = tuple(files)
        self.importance: Importance | None = None
        self.added: tuple[KeyValue, ...] = ()

    def with_importance(self, importance: Importance, added: Iterable[KeyValue] = ()) -> Self:
        """The same source together with an importance matrix. Raises UsageError for a matrix of another model."""
        for tensor in self.tensors:
            values = importance.get(tensor.name)
            if values is not None and values.size != tensor.row_length * tensor.slices:
                raise UsageError(
                    f"the importance matrix is of another model: {values.size} values for {tensor.name}, "
                    f"which has {tensor.slices} x {tensor.row_length}",
                    hint="make one of this model: dsr imatrix",
                )
        other = copy(self)
        other.importance, other.added = importance, tuple(added)
        return other

    def has_importance(self, name: str) -> bool:
        """Whether the importance matrix has an entry for the tensor called `name`."""
        return self.importance is not None and name in self.importance

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """`count` rows from row `first` on, as (count, row_length). Rows run over all dimensions but the first.

        Called from several threads at once.
        """
        raise NotImplementedError
