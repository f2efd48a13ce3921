"""Tiny GGUF models with random weights, whose shapes set off the rules of the standard mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.gguf_writer import T, llama_metadata, write


def model(
    path: Path,
    *,
    layers: int = 2,
    present: Sequence[int] | None = None,
    width: int = 32,
    hidden: int = 32,
    heads: int = 4,
    kv_heads: int = 2,
    experts: int = 0,
    tied: bool = False,
    architecture: str = "llama",
    type: str = "F16",
    seed: int = 0,
) -> Path:
    """A llama or mixtral with heads of 4 and a `hidden` wide feed-forward part. Of its layers only those `present` have
    more than a norm: quantizing asks no more."""
    chance = np.random.default_rng(seed)
    tensors: list[T] = []

    def add(name: str, *shape: int, kind: str = type) -> None:
        values = chance.standard_normal(int(np.prod(shape))).astype(np.float32) * 0.05
        tensors.append(T(name, shape, kind, data=encode(values, kind)))

    add("token_embd.weight", width, 8)
    if not tied:
        add("output.weight", width, 8)
    add("output_norm.weight", width, kind="F32")
    for n in range(layers):
        add(f"blk.{n}.attn_norm.weight", width, kind="F32")
        if present is not None and n not in present:
            continue
        add(f"blk.{n}.attn_q.weight", width, 4 * heads)
        add(f"blk.{n}.attn_k.weight", width, 4 * kv_heads)
        add(f"blk.{n}.attn_v.weight", width, 4 * kv_heads)
        add(f"blk.{n}.attn_output.weight", 4 * heads, width)
        add(f"blk.{n}.ffn_norm.weight", width, kind="F32")
        stack, name = ((experts,), "_exps") if experts else ((), "")
        if experts:
            add(f"blk.{n}.ffn_gate_inp.weight", width, experts, kind="F32")
        add(f"blk.{n}.ffn_gate{name}.weight", width, hidden, *stack)
        add(f"blk.{n}.ffn_up{name}.weight", width, hidden, *stack)
        add(f"blk.{n}.ffn_down{name}.weight", hidden, width, *stack)
    changes = {
        "llama.block_count": layers,
        "llama.embedding_length": width,
        "llama.feed_forward_length": hidden,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.key_length": 4,
        "llama.attention.value_length": 4,
        "llama.rope.dimension_count": 4,
        **({"llama.expert_count": experts, "llama.expert_used_count": 2} if experts else {}),
    }
    metadata = {
        key.replace("llama.", f"{architecture}.", 1) if key.startswith("llama.") else key: value
        for key, value in llama_metadata(**changes).items()
    }
    return write(path, metadata | {"general.architecture": architecture}, tensors)


def encode(values: NDArray[np.float32], kind: str) -> bytes:
    if kind == "F32":
        return values.tobytes()
    if kind == "F16":
        return values.astype(np.float16).tobytes()
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()  # BF16, cut off


def importance(path: Path, seed: int = 1) -> dict[str, NDArray[np.float32]]:
    """One for every matrix but the embedding and the output, as llama-imatrix leaves them."""
    from quant.sources.source import GgufSource

    chance = np.random.default_rng(seed)
    with GgufSource(path) as source:
        return {
            tensor.name: chance.uniform(0.01, 4, (int(np.prod(tensor.shape[2:])), tensor.row_length)).astype(np.float32)
            for tensor in source.tensors
            if tensor.name.startswith("blk.") and len(tensor.shape) > 1
        }
