"""How the weights of a checkpoint are quantized, by its config.json or by its tensors.

dsr reads FP8, compressed-tensors, GPTQ, AWQ, ModelOpt and MXFP4, in the forms of `quant.sources.forms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.base.errors import PUBLISHED, BadModelFile, Incompatible

_HINT = "take the original weights, in BF16 or F16"
# Files of programs that left config.json as it was (AutoGPTQ, AutoAWQ, and the first exports of NVIDIA's ModelOpt).
FILES = (("quantize_config.json", "gptq"), ("quant_config.json", "awq"), ("hf_quant_config.json", "modelopt"))
# Ends of names that only such tensors have, and the program that made them.
_TENSORS = ((".absmax", "bitsandbytes"), (".quant_map", "bitsandbytes"), (".nested_absmax", "bitsandbytes"))
_PACKED = ((".qweight", "gptq or awq"), (".weight_packed", "compressed-tensors"))
_LARGEST_BLOCK = 1 << 20
_BITS = (4, 8, 2)  # how many an integer may have in a word of 32
# Formats of compressed-tensors ("format" in config.json, and in its groups): those that dsr unpacks.
_COMPRESSED = frozenset(
    (
        *("dense", "float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "mixed-precision"),
        *("nvfp4-pack-quantized", "mxfp4-pack-quantized"),
    )
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the tensors themselves do not say. `block` are rows and columns that share a factor of FP8 weights.
    Integers may have one of `bits`, and be in groups of one of `groups`. `above` is added to stored zero points.
    `promised` is how the quantized weights are called, as far as the configuration tells."""

    method: str
    block: tuple[int, int] | None = None
    bits: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    above: int = 0
    promised: str = "F8_E4M3"


def stored_scheme(
    config: Mapping[str, Any], path: Path, listing: Iterable[str] = (), beside: Mapping[str, Any] | None = None
) -> Scheme | None:
    """How the weights are quantized; None for weights that are not.

    `config` is the object of the config.json at `path`, `listing` has the names of the files next to it, `beside` is
    the object in the one of them that describes a quantization. Raises Incompatible for kinds of quantization that dsr
    does not read, BadModelFile for settings that are no JSON object."""
    text = config.get("text_config")
    inner = text.get("quantization_config") if isinstance(text, Mapping) else None
    settings = config.get("quantization_config")
    settings = inner if settings is None else settings
    settings = config.get("quantization") if settings is None else settings  # MLX
    if settings is None:
        found = set(listing)
        method = next((method for name, method in FILES if name in found), None)
        return None if method is None else _scheme({**(beside or {}), "quant_method": method}, method, str(path.parent))
    if not isinstance(settings, Mapping):
        raise BadModelFile(path, "quantization_config is not a JSON object", hint=PUBLISHED)
    return _scheme(settings, _method(settings), str(path))


def check_tensors(names: Iterable[str], folder: Path, scheme: Scheme | None) -> None:
    """Raise Incompatible for tensors that only adapters or weights of another quantization have."""
    for name in names:
        if ".lora_A." in name or ".lora_B." in name or name.startswith("base_model.model."):
            raise Incompatible(
                f"{folder}: an adapter (LoRA), not a model: it has the tensor {name!r}",
                hint="take the model that it was merged into",
            )
        for end, method in (*_TENSORS, *(() if scheme else _PACKED)):
            if name.endswith(end):
                raise _quantized(str(folder), method)


def _scheme(settings: Mapping[str, Any], method: str, place: str) -> Scheme:
    if method == "fp8":
        layout = settings.get("fmt", "e4m3")
        if layout not in ("e4m3", "float8_e4m3fn"):
            raise _quantized(place, f"fp8 ({str(layout)[:40]})")
        block = settings.get("weight_block_size")
        return Scheme(method, None if block is None else _block(block, place))
    if method in ("fbgemm_fp8", "modelopt"):
        algorithm = str(settings.get("quant_algo", settings.get("quantization", "")))
        return Scheme(method, promised="E2M1" if "NVFP4" in algorithm else "F8_E4M3")
    if method == "mxfp4":
        return Scheme(method, promised="MXFP4")
    if method == "gptq":
        layout = settings.get("checkpoint_format") or "gptq"
        if layout not in ("gptq", "gptq_v2"):
            raise _quantized(place, f"gptq ({str(layout)[:40]})")
        bits = _one_of(settings.get("bits"), _BITS, place, "gptq")
        return Scheme(method, None, bits, _sizes(settings.get("group_size")), int(layout == "gptq"), f"INT{bits[0]}")
    if method == "awq":
        layout = str(settings.get("version", "gemm")).lower()
        if layout != "gemm":
            raise _quantized(place, f"awq ({layout[:40]})")
        bits = _one_of(settings.get("bits", settings.get("w_bit")), (4,), place, "awq")
        return Scheme(method, None, bits, _sizes(settings.get("group_size", settings.get("q_group_size"))), 0, "INT4")
    if method == "compressed-tensors":
        return _compressed(settings, place)
    raise _quantized(place, method)


def _compressed(settings: Mapping[str, Any], place: str) -> Scheme:
    """The scheme of compressed-tensors, whose groups of layers may be quantized in different ways."""
    groups = settings.get("config_groups")
    groups = [each for each in groups.values() if isinstance(each, Mapping)] if isinstance(groups, Mapping) else []
    formats = {str(each.get("format") or "") for each in (settings, *groups)} - {""}
    sparsity = settings.get("sparsity_config")
    sparse = str(sparsity.get("format", "dense")) if isinstance(sparsity, Mapping) else "dense"
    odd = sorted(formats - _COMPRESSED) + ([sparse] if sparse != "dense" else [])
    if settings.get("transform_config"):
        odd.append("transforms")
    if odd:
        raise _quantized(place, f"compressed-tensors ({odd[0][:40]})")
    weights = [each["weights"] for each in groups if isinstance(each.get("weights"), Mapping)]
    blocks = {tuple(_block(each["block_structure"], place)) for each in weights if each.get("block_structure")}
    if len(blocks) > 1:
        raise _quantized(place, "compressed-tensors (blocks of several sizes)")
    bits = tuple(dict.fromkeys(each["num_bits"] for each in weights if each.get("num_bits") in _BITS))
    sizes = tuple(size for each in weights for size in _sizes(each.get("group_size")))
    promised = "F8_E4M3"
    if "nvfp4-pack-quantized" in formats:
        promised = "E2M1"  # it is read as floats
    elif "mxfp4-pack-quantized" in formats:
        promised = "MXFP4"
    elif formats & {"int-quantized", "pack-quantized"} and bits:
        promised = f"INT{bits[0]}"
    block = next(((each[0], each[1]) for each in blocks), None)
    return Scheme("compressed-tensors", block, bits, tuple(dict.fromkeys(sizes)), 0, promised)


def _block(value: Any, place: str) -> tuple[int, int]:
    if not (isinstance(value, list) and len(value) == 2 and all(map(_is_size, value))):
        raise Incompatible(f"{place}: blocks of FP8 weights need two sizes, as in [128, 128]", hint=_HINT)
    return value[0], value[1]


def _one_of(value: Any, known: tuple[int, ...], place: str, method: str) -> tuple[int, ...]:
    """The number of bits, or all that are known where none is given."""
    if value is None:
        return known
    if type(value) is not int or value not in known:
        raise _quantized(place, f"{method} ({str(value)[:20]} bits)")
    return (value,)


def _sizes(value: Any) -> tuple[int, ...]:
    """A size of groups; none for -1 and anything else, which means whole rows."""
    return (value,) if _is_size(value) else ()


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
        f"{place}: weights quantized by {method!r}, which dsr cannot read: it reads FP8, MXFP4, NVFP4, GPTQ, AWQ and "
        "compressed-tensors",
        hint=_HINT,
    )
