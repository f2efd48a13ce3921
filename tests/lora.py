"""Writes small LoRA adapters, as llama.cpp's convert_lora_to_gguf.py does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quant.gguf import writer
from quant.gguf.writer import KeyValue


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    target: str


def write_lora(
    path: Path,
    architecture: str,
    tensors: Mapping[str, Any],
    *,
    alpha: float = 8.0,
    kind: str = "adapter",
    method: str = "lora",
    more: tuple[KeyValue, ...] = (),
    types: Mapping[str, str] = {},
) -> Path:
    """`tensors` are numpy arrays by name, rows last as in numpy; they are written as F32, or as one of `types`."""
    entries = (
        writer.text("general.architecture", architecture),
        writer.text("general.type", kind),
        writer.text("adapter.type", method),
        writer.f32("adapter.lora.alpha", alpha),
        *more,
    )
    placed = [Tensor(name, tuple(reversed(array.shape)), types.get(name, "F32")) for name, array in tensors.items()]
    layout = writer.layout(entries, placed)
    data = bytearray(layout.size)
    data[: len(layout.header)] = layout.header
    for begin, (name, array) in zip(layout.offsets, tensors.items(), strict=True):
        raw = np.ascontiguousarray(array, np.float16 if types.get(name) == "F16" else np.float32).tobytes()
        data[begin : begin + len(raw)] = raw
    path.write_bytes(bytes(data))
    return path


def pair(name: str, shape: tuple[int, ...], rank: int = 4, *, size: float = 0.3, seed: int = 0) -> dict[str, Any]:
    """A and B of a weight whose shape is given in ggml order."""
    width, rows, *experts = shape
    random = np.random.default_rng(seed)
    return {
        f"{name}.lora_a": random.normal(0, size, (*experts, rank, width)),
        f"{name}.lora_b": random.normal(0, size, (*experts, rows, rank)),
    }
