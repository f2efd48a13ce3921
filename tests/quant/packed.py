"""Quantized weights as the programs that make them store them, packed here by the rules of their formats.

Each function returns the stored tensors of one weight. The reference is llama.cpp's converter, and for AWQ and FP4 the
arithmetic of transformers: tests/peers/stored_weights.py reads the same folders with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.quant import tiny
from tests.quant.tiny import Stored

Array = np.ndarray[Any, Any]
AWQ = (0, 2, 4, 6, 1, 3, 5, 7)


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))


def words(codes: Array, bits: int) -> Array:
    """Codes of each row in words of 32 bits, the lowest bits first; the last word is padded."""
    each = 32 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % each))).astype(np.uint32)
    shifts = np.arange(each, dtype=np.uint32) * bits
    return (padded.reshape(len(codes), -1, each) << shifts).sum(axis=2, dtype=np.uint32).view(np.int32)


def raw(values: Array) -> Stored:
    kinds = {"int32": "I32", "int64": "I64", "int8": "I8", "uint8": "U8"}
    return kinds[values.dtype.name], values.shape, np.ascontiguousarray(values).tobytes()


def factors(name: str, shape: tuple[int, ...], kind: str = "F16") -> Stored:
    return tiny.stored(generator(name + " factors").uniform(0.01, 0.1, shape).astype(np.float32), kind)


def codes_of(name: str, shape: tuple[int, ...], bits: int) -> Array:
    return generator(name).integers(0, 1 << bits, shape)


def gptq(name: str, outputs: int, inputs: int, bits: int, group: int, *, reordered: bool = False) -> dict[str, Stored]:
    count = -(-inputs // group)
    order = np.arange(inputs) // group
    if reordered:
        order = generator(name + " order").permutation(order)
    return {
        f"{name}.qweight": raw(words(codes_of(name, (outputs, inputs), bits), bits).T),
        f"{name}.qzeros": raw(words(codes_of(name + " zeros", (count, outputs), bits), bits)),
        f"{name}.scales": factors(name, (count, outputs)),
        f"{name}.g_idx": raw(order.astype(np.int32)),
    }


def awq(name: str, outputs: int, inputs: int, group: int) -> dict[str, Stored]:
    def packed(codes: Array) -> Array:
        return words(codes.reshape(len(codes), -1, 8)[:, :, AWQ].reshape(codes.shape), 4)

    count = inputs // group
    return {
        f"{name}.qweight": raw(packed(codes_of(name, (inputs, outputs), 4))),
        f"{name}.qzeros": raw(packed(codes_of(name + " zeros", (count, outputs), 4))),
        f"{name}.scales": factors(name, (count, outputs)),
    }


def packed(name: str, height: int, width: int, bits: int, group: int, *, zeros: bool = False) -> dict[str, Stored]:
    """compressed-tensors, pack-quantized."""
    columns = -(-width // group)
    found = {
        f"{name}.weight_packed": raw(words(codes_of(name, (height, width), bits), bits)),
        f"{name}.weight_scale": factors(name, (height, columns), "BF16"),
        f"{name}.weight_shape": raw(np.array([height, width], np.int64)),
    }
    if zeros:
        found[f"{name}.weight_zero_point"] = raw(words(codes_of(name + " zeros", (columns, height), bits), bits).T)
    return found


def fp8(name: str, shape: tuple[int, ...], grid: tuple[int, ...], suffix: str, kind: str = "F32") -> dict[str, Stored]:
    codes = generator(name).integers(0, 256, shape).astype(np.uint8)
    codes[codes & 127 == 127] = 0
    return {name: ("F8_E4M3", shape, codes.tobytes()), name + suffix: factors(name, grid, kind)}


def int8(name: str, shape: tuple[int, ...], grid: tuple[int, ...]) -> dict[str, Stored]:
    codes = generator(name).integers(-128, 128, shape).astype(np.int8)
    return {name: raw(codes), f"{name}_scale": factors(name, grid, "BF16")}


def gpt_oss(name: str, experts: int, rows: int, width: int) -> dict[str, Stored]:
    shape = (experts, rows, width // 32)
    return {
        f"{name}_blocks": raw(generator(name).integers(0, 256, (*shape, 16)).astype(np.uint8)),
        f"{name}_scales": raw(generator(name + " factors").integers(100, 140, shape).astype(np.uint8)),
    }


def nvfp4(name: str, height: int, width: int) -> dict[str, Stored]:
    scales = generator(name + " factors").integers(1, 126, (height, width // 16)).astype(np.uint8)
    return {
        f"{name}.weight": raw(generator(name).integers(0, 256, (height, width // 2)).astype(np.uint8)),
        f"{name}.weight_scale": ("F8_E4M3", scales.shape, scales.tobytes()),
        f"{name}.weight_scale_2": tiny.stored(np.array(0.0123), "F32"),
        f"{name}.input_scale": tiny.stored(np.array(0.5), "F32"),
    }


def save(folder: Path, settings: dict[str, Any], tensors: dict[str, Stored]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))
    tiny.write_safetensors(folder / "model.safetensors", {**tensors, "norm": tiny.stored(np.ones(4), "BF16")})
    return folder


def _compressed(kind: str, **weights: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "format": kind, "config_groups": {"group_0": {"weights": weights}}}


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
_BLOCK = {"quant_method": "fp8", "weight_block_size": [8, 16]}
_CHANNEL = _compressed("float-quantized", num_bits=8, type="float", strategy="channel")
_INT4 = _compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=32, symmetric=True)
_INT8 = _compressed("int-quantized", num_bits=8, type="int", strategy="channel", symmetric=True)

# Those that llama.cpp's converter reads: (settings, tensors).
FORMS: dict[str, Callable[[], tuple[dict[str, Any], dict[str, Stored]]]] = {
    "fp8_block": lambda: (_BLOCK, fp8("a.weight", (20, 40), (3, 3), "_scale_inv")),
    "fp8_block_experts": lambda: (_BLOCK, fp8("a.weight", (3, 20, 40), (3, 3, 3), "_scale_inv", "BF16")),
    "fp8_tensor": lambda: (
        {"quant_method": "fp8", "weight_block_size": None},
        fp8("a.weight", (20, 40), (), "_scale_inv", "BF16")
        | {"a.activation_scale": tiny.stored(np.array(1.0), "F32")}
        | fp8("experts.up_proj", (3, 4, 8), (3,), "_scale_inv"),
    ),
    "fp8_channel": lambda: (_CHANNEL, fp8("a.weight", (20, 40), (20, 1), "_scale", "BF16")),
    "modelopt_fp8": lambda: (
        {"quant_method": "modelopt", "quant_algo": "FP8"},
        fp8("a.weight", (20, 40), (), "_scale") | {"a.k_scale": tiny.stored(np.array(1.0), "F32")},
    ),
    "int8": lambda: (_INT8, int8("a.weight", (20, 40), (20, 1))),
    "packed_4": lambda: (_INT4, packed("a", 24, 64, 4, 32)),
    "packed_4_zeros": lambda: (_INT4, packed("a", 20, 64, 4, 32, zeros=True)),
    "packed_8": lambda: (
        _compressed("pack-quantized", num_bits=8, type="int", strategy="group", group_size=16),
        packed("a", 10, 48, 8, 16),
    ),
    "gptq": lambda: (_GPTQ, gptq("a", 24, 64, 4, 32)),
    "gptq_reordered": lambda: (_GPTQ | {"desc_act": True}, gptq("a", 40, 96, 4, 32, reordered=True)),
    "gptq_v2": lambda: (_GPTQ | {"checkpoint_format": "gptq_v2"}, gptq("a", 24, 64, 4, 32)),
    "gptq_8": lambda: (_GPTQ | {"bits": 8}, gptq("a", 24, 64, 8, 32)),
}
