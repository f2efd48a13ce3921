"""The header of a safetensors file, checked strictly: lengths, types, shapes and offsets, with exact integers.

The layout is that of the format's own description and reference reader (huggingface/safetensors, README.md and
safetensors/src/tensor.rs): eight bytes with the length of a JSON object, that object, then the bytes of the tensors
without hole or overlap. No weights are read here, and nothing in such a file is ever run.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.base.errors import PULL_AGAIN, PULL_ITSELF, BadModelFile, DsrError, Incompatible, NotFound
from runtime.base.file_kind import SAFETENSORS, START, file_kind
from runtime.base.quoted import spelled

# Bits per element.
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64}
_LARGEST_HEADER = 100_000_000  # the limit of the reference reader
_MAX_DIMS = 8
_METADATA = "__metadata__"
LONGEST_NAME = 512  # of a tensor; the longest of published models have about 100 characters


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: `shape` in the checkpoint's order (the row length last), `begin` and `end` are bytes of
    `file`. A tensor of one dimension is a single row."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def width(self) -> int:
        """Elements of one row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])


def read_header(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of one file, by name. Raises NotFound, BadModelFile, Incompatible."""
    entries, data, size = _header(path)
    tensors = [_tensor(name, entry, data, path) for name, entry in entries if name != _METADATA]
    _check_places(tensors, data, size, path)
    return tuple(sorted(tensors, key=lambda tensor: tensor.name))


def read_metadata(path: Path) -> dict[str, str]:
    """What the header says besides: texts by name. Raises as `read_header`."""
    found = dict(_header(path)[0]).get(_METADATA, {})
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _header(path: Path) -> tuple[list[tuple[str, Any]], int, int]:
    """The entries of the header, the byte at which the tensors begin, and the size of the file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = _header_length(file.read(START), size, path)
            file.seek(8)
            raw = file.read(length)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file", hint="pull the missing file") from None
    except OSError as error:
        raise DsrError(f"{path}: {error.strerror or error}") from error
    if len(raw) < length:
        raise BadModelFile(path, "became shorter while it was read", hint=PULL_AGAIN)
    return _entries(raw, path), 8 + length, size


def _header_length(start: bytes, size: int, path: Path) -> int:
    if size < 8 or len(start) < 8:
        raise BadModelFile(path, f"{size} bytes are too few for a safetensors file", hint=PULL_AGAIN)
    length = int.from_bytes(start[:8], "little")
    kind = file_kind(start, size)
    if not 2 <= length <= min(size - 8, _LARGEST_HEADER) and kind not in ("", SAFETENSORS):
        raise BadModelFile(path, f"{kind}, not a safetensors file", hint=PULL_ITSELF)
    if length > size - 8:
        raise BadModelFile(path, f"claims a header of {length} bytes, but the file has {size}", hint=PULL_AGAIN)
    if length > _LARGEST_HEADER:
        raise BadModelFile(path, f"claims a header of {length} bytes, beyond all reason", hint=PULL_AGAIN)
    return length


def _entries(raw: bytes, path: Path) -> list[tuple[str, Any]]:
    if raw[:1] != b"{":
        raise BadModelFile(path, "not a safetensors file: its header is not a JSON object", hint=PULL_AGAIN)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise BadModelFile(path, f"{key!r} appears twice in its header", hint=PULL_AGAIN)
            found[key] = value
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs)
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise BadModelFile(path, "its header is not valid JSON", hint=PULL_AGAIN) from None
    if not isinstance(header, dict):
        raise BadModelFile(path, "its header is not a JSON object", hint=PULL_AGAIN)
    return [*header.items()]


def _tensor(name: str, entry: Any, data: int, path: Path) -> StoredTensor:
    """One entry of the header; `data` is the byte at which the tensors begin."""
    if len(name) > LONGEST_NAME:
        raise BadModelFile(path, f"the name of a tensor has {len(name)} characters", hint=PULL_AGAIN)
    if not isinstance(entry, dict):
        raise BadModelFile(path, f"the entry of {name!r} is not a JSON object", hint=PULL_AGAIN)
    dtype, shape, offsets = entry.get("dtype"), _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if not isinstance(dtype, str):
        raise BadModelFile(path, f"tensor {name!r} has no type", hint=PULL_AGAIN)
    if dtype not in _BITS:
        raise Incompatible(f"{path}: tensor {name!r} has the type {spelled(dtype)}, which is not known here")
    if shape is None or len(shape) > _MAX_DIMS:
        raise BadModelFile(path, f"the shape of tensor {name!r} is not a list of sizes", hint=PULL_AGAIN)
    if offsets is None or len(offsets) != 2:
        raise BadModelFile(path, f"the offsets of tensor {name!r} are not two numbers", hint=PULL_AGAIN)
    begin, end = offsets
    needed = math.prod(shape) * _BITS[dtype] // 8
    if end - begin != needed:
        problem = f"tensor {name!r} of type {dtype} and shape {shape} needs {needed} bytes, but has {end - begin}"
        raise BadModelFile(path, problem, hint=PULL_AGAIN)
    return StoredTensor(name, dtype, tuple(shape), path, data + begin, data + end)


def _sizes(value: Any) -> list[int] | None:
    """A list of integers from 0 on, or None when it is anything else. JSON's true is no integer."""
    listed = isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)
    return value if listed else None


def _check_places(tensors: list[StoredTensor], data: int, size: int, path: Path) -> None:
    """The tensors must lie one behind the other and fill the file to its end."""
    at, before = data, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.end > size:
            problem = f"tensor {tensor.name!r} ends at byte {tensor.end}, but the file ends at {size}"
            raise BadModelFile(path, problem, hint=PULL_AGAIN)
        if tensor.begin < at:
            raise BadModelFile(path, f"the tensors {before} and {tensor.name!r} overlap", hint=PULL_AGAIN)
        if tensor.begin > at:
            problem = f"bytes {at} to {tensor.begin} before tensor {tensor.name!r} belong to no tensor"
            raise BadModelFile(path, problem, hint=PULL_AGAIN)
        at, before = tensor.end, repr(tensor.name)
    if at != size:
        raise BadModelFile(path, f"{size - at} bytes behind the last tensor belong to no tensor", hint=PULL_AGAIN)
