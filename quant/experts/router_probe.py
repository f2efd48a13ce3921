"""A model that ends at its first router, as a source. It computes the logits for `task_match` with a few of the bytes.

The engine maps a whole file and asks the system to read all of it, so opening a large model for its first layers would
be slow. A probe has copies of these layers. The engine also requires the experts of the last of them and the output
matrix, which are never computed: the probe has zeros there, in a small type.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from quant.experts.derived_source import DerivedSource
from quant.experts.expert_tensors import expert_layers
from quant.gguf.keyvalue import KeyValue, u32
from quant.gguf.writer import tensor_bytes
from quant.plan import fitting_type
from quant.sources.gguf_source import GgufSource
from quant.sources.source import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLANK_ROLES = ("routed experts", "shared experts")
_BLANK_TYPE = "Q2_K"  # the smallest type that every backend supports
_ARRAY, _STRING = 9, 8


class RouterProbe(DerivedSource):
    """The layers of `source` up to its first router."""

    def __init__(self, source: GgufSource) -> None:
        """Raises Incompatible for a model without routers."""
        self._last = expert_layers(source.card)[0]
        tensors = tuple(self._given(tensor) for tensor in source.tensors if (tensor.layer or 0) <= self._last)
        super().__init__(source, tensors, tuple(self._entries(source)))

    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8]:
        """Rows as in the new file, (count, bytes of a row)."""
        import numpy as np

        if self._is_blank(tensor):
            return np.zeros((count, tensor_bytes(tensor.stored, (tensor.row_length,))), np.uint8)
        return self._source.stored_rows(self._originals[tensor.name], first, count)

    def _is_blank(self, tensor: TensorSpec) -> bool:
        return tensor.name == "output.weight" or (tensor.role in _BLANK_ROLES and tensor.name.endswith(".weight"))

    def _given(self, tensor: TensorSpec) -> TensorSpec:
        if not self._is_blank(tensor):
            return tensor
        small = fitting_type(_BLANK_TYPE, tensor.row_length)
        smaller = tensor_bytes(small, tensor.shape) < tensor_bytes(tensor.stored, tensor.shape)
        return TensorSpec(tensor.name, tensor.shape, small if smaller else tensor.stored)

    def _entries(self, source: GgufSource) -> Iterator[KeyValue]:
        architecture, count = source.architecture, self._last + 1
        for entry in source.metadata:
            if entry.key == f"{architecture}.block_count":
                yield u32(entry.key, count)
            elif entry.key != f"{architecture}.nextn_predict_layers":
                own = entry.key.startswith(f"{architecture}.")
                yield _first(entry, count, source.card.layers) if own else entry


def _first(entry: KeyValue, count: int, layers: int) -> KeyValue:
    """An array with one item per layer, cut to the first `count` items; other entries unchanged."""
    kind = struct.unpack_from("<I", entry.encoded)[0]
    if kind != _ARRAY:
        return entry
    element, length = struct.unpack_from("<IQ", entry.encoded, 4)
    if length != layers or element in (_ARRAY, _STRING):
        return entry
    width = (len(entry.encoded) - 16) // length
    cut = struct.pack("<IIQ", _ARRAY, element, count) + entry.encoded[16 : 16 + count * width]
    return KeyValue(entry.key, cut)
