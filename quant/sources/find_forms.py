"""Which stored tensors hold a quantized weight together, by their names, types and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quant.sources.forms import Form, Fp4, Grid, PackedColumns, PackedRows, Scaled
from quant.sources.mapped import FLOATS, MappedFiles
from quant.sources.stored_quantization import Scheme
from runtime.base.errors import ONE_MODEL, BadModelFile
from runtime.base.safetensors import StoredTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Ends of names of tensors that belong to a quantized weight or to a cache, and that no float weight needs.
_BESIDE = (
    *(".input_scale", ".output_scale", ".activation_scale", "_activation_scale", ".k_scale", ".v_scale", ".q_scale"),
    *(".input_zero_point", ".output_zero_point", ".input_global_scale", ".k_zero_point", ".v_zero_point"),
)
_FACTORS = ("_scale", "_scales", "_scale_inv", "_zero_point")
_BYTES = {"F8_E4M3": "F8_E4M3", "I8": "INT8"}  # stored type of one byte per element, and how the model calls it


@dataclass(frozen=True, slots=True)
class Found:
    """The tensors of the model in the order of llama.cpp's converter, and the forms of the quantized ones."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)


def find_forms(stored: Mapping[str, StoredTensor], scheme: Scheme | None, files: MappedFiles) -> Found:
    """The weights in `stored`, put together as `scheme` says (None: without quantization).

    `files` reads the few numbers that a shape needs. Raises BadModelFile for parts that are missing or do not fit."""
    parts = _Parts(stored, files)
    first: list[Form] = []  # the converter writes FP4 blocks before all others, and what it unpacks after them
    last: list[Form] = []
    plain: dict[str, StoredTensor | Form] = {}
    for name, tensor in stored.items():
        if scheme is None and tensor.dtype == "F8_E4M3":
            problem = f"tensor {name!r} is FP8, but config.json has no quantization_config"
            raise BadModelFile(tensor.file, problem, hint=ONE_MODEL)
        if scheme is None:
            plain[name] = tensor
        elif tensor.dtype == "I32" and name.endswith(".qweight"):
            last.append(_packed_columns(parts, name.removesuffix(".qweight"), scheme))
        elif tensor.dtype == "I32" and name.endswith(".weight_packed"):
            last.append(_packed_rows(parts, name.removesuffix("_packed"), scheme))
        elif tensor.dtype == "U8" and name.endswith("_blocks") and name.removesuffix("_blocks") + "_scales" in stored:
            first.append(_blocks(parts, name))
        elif tensor.dtype == "U8" and name.endswith(".weight_packed"):
            first.append(_fp4(parts, name, name.removesuffix("_packed")))
        elif tensor.dtype == "U8" and name.endswith(".weight") and f"{name}_scale" in stored:
            first.append(_fp4(parts, name, name))
        elif tensor.dtype in _BYTES and not name.endswith(_FACTORS):
            plain[name] = _scaled(parts, tensor, scheme)
        else:
            plain[name] = tensor
    found = Found()
    rest = ((name, each) for name, each in plain.items() if name not in parts.used)
    for name, each in (*_by_name(first), *rest, *_by_name(last)):
        if name in found.tensors:
            raise BadModelFile(found.tensors[name].file, f"has {name!r} in two forms", hint=ONE_MODEL)
        if isinstance(each, StoredTensor):
            _refuse_lost_factors(each, scheme)
            if scheme is not None and name.endswith(_BESIDE):
                continue
            found.tensors[name] = each
        else:
            found.tensors[name], found.forms[name] = each.tensor, each
    return found


def _by_name(forms: Iterable[Form]) -> Iterator[tuple[str, Form]]:
    return ((each.tensor.name, each) for each in forms)


def _refuse_lost_factors(tensor: StoredTensor, scheme: Scheme | None) -> None:
    ends = ("_scale_inv", ".weight_scale", ".weight_scale_2") if scheme else ("_scale_inv",)
    if tensor.name.endswith(ends):
        raise BadModelFile(tensor.file, f"{tensor.name!r} belongs to no quantized weight", hint=ONE_MODEL)


class _Parts:
    """The stored tensors, of which those that were asked for are used up."""

    def __init__(self, stored: Mapping[str, StoredTensor], files: MappedFiles) -> None:
        self.stored = stored
        self.files = files
        self.used: set[str] = set()

    def optional(self, name: str) -> StoredTensor | None:
        self.used.add(name)
        return self.stored.get(name)

    def needed(self, name: str, of: str, kinds: tuple[str, ...], shape: tuple[int, ...] | None = None) -> StoredTensor:
        """The tensor `name` that the weight `of` needs, of one of these types and of this shape."""
        found = self.optional(name)
        if found is None:
            raise BadModelFile(self.stored[of].file, f"the tensor {of!r} has no {name!r}", hint=ONE_MODEL)
        wrong = found.dtype not in kinds or (shape is not None and found.shape != shape)
        if wrong:
            wanted = f"{' or '.join(kinds)}{'' if shape is None else ' ' + shown(shape)}"
            problem = f"tensor {name!r} is {found.dtype} {shown(found.shape)}; {of!r} needs {wanted}"
            raise BadModelFile(found.file, problem, hint=ONE_MODEL)
        return found

    def integers(self, tensor: StoredTensor) -> NDArray[Any]:
        found: NDArray[Any] = self.files.rows(tensor, 0, 1)[0]
        return found


def shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _matrix(tensor: StoredTensor, least: int = 2, most: int = 2) -> None:
    """Raise BadModelFile unless a tensor has so many dimensions, none of them empty."""
    if not least <= len(tensor.shape) <= most or 0 in tensor.shape:
        problem = f"the quantized tensor {tensor.name!r} is {shown(tensor.shape)}, not a matrix"
        raise BadModelFile(tensor.file, problem, hint=ONE_MODEL)


def _logical(tensor: StoredTensor, name: str, dtype: str, shape: tuple[int, ...]) -> StoredTensor:
    return StoredTensor(name, dtype, shape, tensor.file, tensor.begin, tensor.end)


def _scaled(parts: _Parts, tensor: StoredTensor, scheme: Scheme) -> Form:
    name = tensor.name
    suffix = "_scale" if f"{name}_scale" in parts.stored else "_scale_inv"
    factors = parts.needed(name + suffix, name, (*FLOATS, "F8_E8M0"))
    _matrix(tensor, most=3)
    grid = _grid(tensor.shape, factors.shape, scheme)
    if grid is None:
        blocks = f", in blocks of {shown(scheme.block)}" if scheme.block else ""
        problem = f"tensor {factors.name!r} is {shown(factors.shape)}, no factors for {shown(tensor.shape)} weights"
        raise BadModelFile(factors.file, problem + blocks, hint=ONE_MODEL)
    zeros = parts.optional(f"{name}_zero_point") if tensor.dtype == "I8" else None
    if zeros is not None:
        parts.needed(zeros.name, name, ("I8",), factors.shape)
    return Scaled(_logical(tensor, name, _BYTES[tensor.dtype], tensor.shape), tensor, factors, grid, zeros)


def _grid(shape: tuple[int, ...], factors: tuple[int, ...], scheme: Scheme) -> Grid | None:
    """Which factor belongs to which element; None where the shapes do not fit together."""
    *lead, height, width = shape
    count = math.prod(lead)
    one = Grid(1, 1, 1, height, width)
    if math.prod(factors) == 1:
        return one
    if lead and factors in ((count,), (count, 1), (count, 1, 1)):  # one for each matrix
        return Grid(count, 1, 1, height, width)
    if factors in ((height,), (height, 1)) and not lead:
        return Grid(1, height, 1, 1, width)
    if lead and factors == (count, height, 1):
        return Grid(count, height, 1, 1, width)
    if len(factors) < 2 or factors[:-2] not in ((), tuple(lead)):
        return None
    matrices, (rows, columns) = math.prod(factors[:-2]), factors[-2:]
    if scheme.block is not None:
        high, wide = scheme.block
        fits = (rows, columns) == (-(-height // high), -(-width // wide))
        return Grid(matrices, rows, columns, high, wide) if fits else None
    for wide in scheme.groups:
        if (rows, columns) == (height, -(-width // wide)):
            return Grid(matrices, height, columns, 1, wide)
    return None


def _packed_rows(parts: _Parts, name: str, scheme: Scheme) -> Form:
    """compressed-tensors, "pack-quantized": the weight called `name`."""
    packed = f"{name}_packed"
    words = parts.needed(packed, packed, ("I32",))
    _matrix(words)
    sizes = parts.integers(parts.needed(f"{name}_shape", packed, ("I64", "I32"), (2,)))
    height, width = int(sizes[0]), int(sizes[1])
    bits = next((bits for bits in scheme.bits if words.shape == (height, -(-width * bits // 32))), 0)
    factors = parts.needed(f"{name}_scale", packed, FLOATS)
    columns = factors.shape[-1] if len(factors.shape) == 2 and factors.shape[0] == height else 0
    wide = width if columns == 1 else next((g for g in scheme.groups if columns and -(-width // g) == columns), 0)
    if not (bits and columns and wide and height > 0 and width > 0):
        problem = (
            f"tensor {packed!r} is {shown(words.shape)} with factors {shown(factors.shape)}, which cannot hold "
            f"{height}x{width} integers of {' or '.join(map(str, scheme.bits)) or 'no'} bits in groups of "
            f"{' or '.join(map(str, scheme.groups)) or 'a row'}"
        )
        raise BadModelFile(words.file, problem, hint=ONE_MODEL)
    zeros = parts.optional(f"{name}_zero_point")
    if zeros is not None:
        parts.needed(zeros.name, packed, ("I32",), (-(-height * bits // 32), columns))
    groups = parts.optional(f"{name}_g_idx")
    if groups is not None:
        parts.needed(groups.name, packed, ("I32", "I64"), (width,))
    logical = _logical(words, name, f"INT{bits}", (height, width))
    return PackedRows(logical, words, factors, bits, wide, zeros, groups if columns > 1 else None)


def _packed_columns(parts: _Parts, base: str, scheme: Scheme) -> Form:
    """GPTQ or AWQ: the weight called `base`.weight."""
    name, awq = f"{base}.qweight", scheme.method == "awq"
    words = parts.needed(name, name, ("I32",))
    _matrix(words)
    zeros = parts.needed(f"{base}.qzeros", name, ("I32",))
    factors = parts.needed(f"{base}.scales", name, FLOATS)
    _matrix(zeros)
    _matrix(factors)
    count, outputs = factors.shape
    groups = None if awq else parts.optional(f"{base}.g_idx")
    bits = next(
        (
            bits
            for bits in scheme.bits
            if outputs * bits % 32 == 0 and zeros.shape == (count, outputs * bits // 32)
            and words.shape[1] == (outputs * bits // 32 if awq else outputs)
        ),
        0,
    )  # fmt: skip
    inputs = words.shape[0] if awq else words.shape[0] * 32 // max(bits, 1)
    wide = -(-inputs // count)
    if not bits or (groups is None and (inputs % count or (scheme.groups and count > 1 and wide not in scheme.groups))):
        problem = (
            f"tensor {name!r} is {shown(words.shape)} with zero points {shown(zeros.shape)} and factors "
            f"{shown(factors.shape)}, which cannot hold integers of {' or '.join(map(str, scheme.bits))} bits"
        )
        raise BadModelFile(words.file, problem, hint=ONE_MODEL)
    if groups is not None:
        parts.needed(groups.name, name, ("I32", "I64"), (inputs,))
    logical = _logical(words, f"{base}.weight", f"INT{bits}", (outputs, inputs))
    return PackedColumns(logical, words, zeros, factors, bits, wide, scheme.above, groups, awq)


def _blocks(parts: _Parts, name: str) -> Form:
    """gpt-oss: blocks of 32 elements as 16 bytes, and their factors in a tensor of their own."""
    codes = parts.needed(name, name, ("U8",))
    _matrix(codes, least=3, most=4)
    *lead, columns, half = codes.shape
    if half != 16:
        raise BadModelFile(codes.file, f"tensor {name!r} has blocks of {half} bytes, not 16", hint=ONE_MODEL)
    factors = parts.needed(name.removesuffix("_blocks") + "_scales", name, ("U8",), (*lead, columns))
    return Fp4(_logical(codes, name, "MXFP4", (*lead, columns * 32)), codes, _as_e8m0(factors), 32)


def _fp4(parts: _Parts, stored: str, name: str) -> Form:
    """NVFP4 of ModelOpt or compressed-tensors, and MXFP4 of the latter: the weight called `name`."""
    codes = parts.needed(stored, stored, ("U8",))
    _matrix(codes, most=3)
    *lead, half = codes.shape
    factors = parts.needed(f"{name}_scale", stored, ("F8_E4M3", "U8", "F8_E8M0"))
    micro = factors.dtype != "F8_E4M3"
    wide = 32 if micro else 16
    if half * 2 % wide or factors.shape != (*lead, half * 2 // wide):
        problem = (
            f"tensor {factors.name!r} is {shown(factors.shape)}, not one for each {wide} of {shown(codes.shape)} bytes"
        )
        raise BadModelFile(factors.file, problem, hint=ONE_MODEL)
    divided = f"{name}_global_scale" in parts.stored
    whole = None if micro else parts.optional(f"{name}_global_scale" if divided else f"{name}_scale_2")
    if whole is not None:
        parts.needed(whole.name, stored, FLOATS)
        if math.prod(whole.shape) not in (1, math.prod(lead[:-1])):
            raise BadModelFile(
                whole.file, f"tensor {whole.name!r} is {shown(whole.shape)}, not a number", hint=ONE_MODEL
            )
    kind = "MXFP4" if micro else "NVFP4"
    logical = _logical(codes, name, kind, (*lead, half * 2))
    return Fp4(logical, codes, _as_e8m0(factors) if micro else factors, wide, whole, divided)


def _as_e8m0(factors: StoredTensor) -> StoredTensor:
    return _logical(factors, factors.name, "F8_E8M0", factors.shape)
