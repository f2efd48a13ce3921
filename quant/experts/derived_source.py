"""A source with some tensors of a GGUF file, whole, cut or blank, in their stored types, and with other metadata."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from quant.gguf.keyvalue import KeyValue
from quant.gguf.writer import tensor_bytes
from quant.plan import QuantPlan, TensorPlan, make_plan
from quant.sources.gguf_source import GgufSource
from quant.sources.source import Source, TensorSpec
from runtime.gguf.types import BY_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DerivedSource(Source, ABC):
    """A source that returns stored rows, so that `quant.write.execute` copies them."""

    def __init__(self, source: GgufSource, tensors: tuple[TensorSpec, ...], metadata: tuple[KeyValue, ...]) -> None:
        super().__init__(source.architecture, tensors, metadata, name=source.name, files=source.files)
        self._source = source
        self._originals = {tensor.name: tensor for tensor in source.tensors}

    def file_plan(self) -> QuantPlan:
        """The plan of the file, with every tensor in its stored type. Its `bytes` are exact."""
        tensors = [
            TensorPlan(
                each.name, each.shape, each.stored, each.stored, "as it is", tensor_bytes(each.stored, each.shape)
            )
            for each in self.tensors
        ]
        number = self._source.card.metadata.get("general.file_type")
        return make_plan(tensors, self, number if number is None or isinstance(number, int) else 0)

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """Rows as numbers, from any stored type."""
        from runtime.llama import dequantize_rows

        return dequantize_rows(BY_NAME[tensor.stored].number, self.stored_rows(tensor, first, count))

    @abstractmethod
    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8]:
        """Rows as in the new file, (count, bytes of a row)."""
