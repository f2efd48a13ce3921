"""The types in which llama.cpp's converter writes a model that is not quantized (conversion/base.py)."""

from __future__ import annotations

from typing import Literal

from quant.sources.source import TensorSpec

PlainType = Literal["f32", "f16", "bf16"]


def plain_type(tensor: TensorSpec, wanted: PlainType) -> str:
    """The ggml type of `tensor` in a conversion to `wanted`. Matrices get `wanted`; vectors, norms and routers stay
    F32."""
    name = tensor.name
    small = len(tensor.shape) < 2 or name.endswith("_norm.weight") or not name.endswith(".weight")
    if small or name.endswith(".ffn_gate_inp.weight"):
        return "F32"
    return wanted.upper()
