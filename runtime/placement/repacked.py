"""Computes the memory of weights that the engine copies into the order that a CPU's fastest kernels want. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from runtime.base.types import ByteCount
from runtime.gguf import types
from runtime.gguf.card import ModelCard, has_plain_stack, layer_count
from runtime.gguf.header import TensorInfo

# Bytes that AMX adds to a block of each type, and the number that must divide the weights of a row (get_row_size in
# ggml-cpu/amx/mmq.cpp, supports_op in ggml-cpu/amx/amx.cpp). Its tiles have 16 rows, taken in pairs.
_AMX: Mapping[str, tuple[int, int]] = {
    "Q4_0": (0, 32), "Q4_1": (0, 32), "Q8_0": (4, 32), "Q4_K": (4, 256), "Q5_K": (4, 256), "Q6_K": (0, 256),
    "IQ4_XS": (2, 256), "F16": (0, 16),
}  # fmt: skip
_AMX_ROWS = 32


def repacked(card: ModelCard, features: Collection[str]) -> ByteCount:
    """Bytes of weights that a CPU with kernels for these features keeps a second time in another order.

    `top` shows them in addition to the mapped file, whose pages the system can drop, so no model needs this memory.
    Source: ggml_repack_get_optimal_repack_type in ggml/src/ggml-cpu/repack.cpp, and ggml/src/ggml-cpu/amx.
    """
    amx = "amx_int8" in features
    if amx and has_plain_stack(card):  # the engine then keeps the file's order (runtime.llama.load_model)
        return ByteCount(0)
    tied = all(tensor.name != "output.weight" for tensor in card.tensors)

    def copied(tensor: TensorInfo) -> int:
        dimensions = 3 if tensor.is_expert_stack else 2
        if tensor.layer is None:
            multiplied = tensor.name == ("token_embd.weight" if tied else "output.weight")
        else:
            multiplied = tensor.layer < layer_count(card) and len(tensor.shape) == dimensions
        if not multiplied:
            return 0
        return (_in_tiles(tensor) if amx and dimensions == 2 else 0) or _in_groups_of_rows(tensor, features)

    return ByteCount(sum(map(copied, card.tensors)))


def _in_tiles(tensor: TensorInfo) -> int:
    """Bytes of this matrix in the order of AMX; 0 if AMX does not take it."""
    more, multiple = _AMX.get(tensor.type, (0, 0))
    if not multiple or tensor.shape[0] % multiple or tensor.shape[1] % _AMX_ROWS:
        return 0
    return tensor.size + more * (tensor.parameters // types.BY_NAME[tensor.type].block)


def _in_groups_of_rows(tensor: TensorInfo, features: Collection[str]) -> int:
    multiples = _repacked_types(features)
    return tensor.size if tensor.type in multiples and tensor.shape[1] % multiples[tensor.type] == 0 else 0


def _repacked_types(features: Collection[str]) -> dict[str, int]:
    """The types that this CPU repacks, and the number that must divide their rows."""
    if "avx2" in features:
        more = {"Q2_K": 8} if "avx512f" in features else {}
        return {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8, **more}
    if "asimddp" in features:
        return {"Q4_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8, "IQ4_NL": 4, "MXFP4": 4, "Q8_0": 4, "Q1_0": 4}
    return {}
