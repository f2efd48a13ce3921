"""A source made of a GGUF file: some of its tensors, cut or blank, and other metadata, in the types that are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from quant.gguf.writer import tensor_bytes
from quant.plan import QuantPlan, TensorPlan, file_metadata, make_plan
from quant.sources.gguf_source import GgufSource
from quant.sources.source import KeyValue, TensorSpec
from runtime.gguf.types import BY_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FILE_TYPE = "general.file_type"


class DerivedSource(ABC):
    """A `quant.sources.source.Source` that gives stored rows, so that `quant.write.execute` copies them."""

    def __init__(self, source: GgufSource, tensors: tuple[TensorSpec, ...], metadata: tuple[KeyValue, ...]) -> None:
        self._source = source
        self._originals = {tensor.name: tensor for tensor in source.tensors}
        self._tensors = tensors
        self._metadata = metadata

    @property
    def files(self) -> tuple[Path, ...]:
        return self._source.files

    @property
    def architecture(self) -> str:
        return self._source.architecture

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        return self._tensors

    @property
    def metadata(self) -> tuple[KeyValue, ...]:
        return self._metadata

    def file_plan(self) -> QuantPlan:
        """The file to write, every tensor in the type it has: its `bytes` are exact."""
        tensors = [
            TensorPlan(
                each.name, each.shape, each.stored, each.stored, "as it is", tensor_bytes(each.stored, each.shape)
            )
            for each in self._tensors
        ]
        number = self._source.card.metadata.get(_FILE_TYPE)
        metadata = file_metadata(self._metadata, number if isinstance(number, int) else 0)
        if number is None:
            metadata = tuple(entry for entry in metadata if entry.key != _FILE_TYPE)
        return make_plan(tensors, metadata, None)

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """Rows as numbers, whatever type they are stored in."""
        from runtime.llama import dequantize_rows

        return dequantize_rows(BY_NAME[tensor.stored].number, self.stored_rows(tensor, first, count))

    @abstractmethod
    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8]:
        """Rows as the file to write has them, (count, bytes of a row)."""
