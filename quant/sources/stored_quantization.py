"""How the weights of a checkpoint are quantized, by its config.json or its tensors. dsr reads DeepSeek's FP8 only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runtime.base.errors import PUBLISHED, BadModelFile, Incompatible

_HINT = "take the original weights, in BF16 or F16"
# Files of programs that left config.json as it was (AutoGPTQ, AutoAWQ, and the first exports of NVIDIA's ModelOpt).
_FILES = (("quantize_config.json", "gptq"), ("quant_config.json", "awq"), ("hf_quant_config.json", "modelopt"))
# Ends of names that only such tensors have, and the program that made them.
_TENSORS = ((".qweight", "gptq or awq"), (".absmax", "bitsandbytes"), (".weight_packed", "compressed-tensors"))
_LARGEST_BLOCK = 1 << 20


def fp8_block(config: Mapping[str, Any], path: Path, listing: Iterable[str] = ()) -> tuple[int, int] | None:
    """Rows and columns that share a factor of FP8 weights; None for weights that are not quantized.

    `config` is the object of the config.json at `path`, `listing` has the names of the files next to it. Raises
    Incompatible for every other kind of quantization, BadModelFile for settings that are no JSON object."""
    settings = config.get("quantization_config")
    if settings is None:
        settings = config.get("quantization")  # MLX
    if settings is None:
        found = set(listing)
        for name, method in _FILES:
            if name in found:
                raise _quantized(f"{path.with_name(name)}", method)
        return None
    if not isinstance(settings, Mapping):
        raise BadModelFile(path, "quantization_config is not a JSON object", hint=PUBLISHED)
    method, layout = _method(settings), settings.get("fmt", "e4m3")
    if method != "fp8" or layout != "e4m3":
        raise _quantized(str(path), method if method != "fp8" else f"fp8 ({str(layout)[:40]})")
    block = settings.get("weight_block_size")
    if not (isinstance(block, list) and len(block) == 2 and all(map(_is_size, block))):
        raise Incompatible(f"{path}: FP8 weights need weight_block_size, as in [128, 128]", hint=_HINT)
    return block[0], block[1]


def check_tensors(names: Iterable[str], folder: Path) -> None:
    """Raise Incompatible for tensors that only quantized weights or adapters have."""
    for name in names:
        if ".lora_A." in name or ".lora_B." in name or name.startswith("base_model.model."):
            raise Incompatible(
                f"{folder}: an adapter (LoRA), not a model: it has the tensor {name!r}",
                hint="take the model that it was merged into",
            )
        for end, method in _TENSORS:
            if name.endswith(end):
                raise _quantized(str(folder), method)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST_BLOCK


def _method(settings: Mapping[str, Any]) -> str:
    method = settings.get("quant_method")
    if isinstance(method, str):
        return method[:40]
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    return "mlx" if "group_size" in settings and "bits" in settings else str(method)[:40]


def _quantized(place: str, method: str) -> Incompatible:
    return Incompatible(
        f"{place}: weights quantized by {method!r}; only DeepSeek's FP8 (e4m3 in blocks) can be read", hint=_HINT
    )
