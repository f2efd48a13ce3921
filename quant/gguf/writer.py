"""The header of a GGUF file to write: metadata, tensor list, and the offset of each tensor.

Version 3, little-endian (ggml's docs/gguf.md). Everything is known before the first weight is read, so the size of a
file is exact and its tensors can be written in any order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime.base.errors import UsageError
from runtime.gguf.types import BY_NAME
from runtime.gguf.values import SCALARS

ALIGNMENT = 32  # GGUF's default; the engine's own tools write no other
_U16, _U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 2, 4, 5, 6, 7, 8, 9
_INTEGERS = {number: code.format for number, (name, code) in SCALARS.items() if name[0] in "ui"}
_MOST_SHARDS = 99999
# Keys that this module or the quantizer sets. The rest of a source's metadata is copied.
WRITTEN_HERE = frozenset(
    {
        "general.alignment",
        "general.file_type",
        "general.quantization_version",
        "split.no",
        "split.count",
        "split.tensors.count",
    }
)


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One entry of a GGUF's metadata: `encoded` is the value type and the value as the file holds them."""

    key: str
    encoded: bytes


class Placed(Protocol):
    """A tensor of a file to write: its shape in ggml order, and the name of its type."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def target(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """One file: its first bytes, the byte at which each tensor begins, its size in bytes."""

    header: bytes
    offsets: tuple[int, ...]
    size: int


def u32(key: str, value: int) -> KeyValue:
    return KeyValue(key, struct.pack("<II", _U32, value))


def i32(key: str, value: int) -> KeyValue:
    return KeyValue(key, struct.pack("<Ii", _I32, value))


def f32(key: str, value: float) -> KeyValue:
    return KeyValue(key, struct.pack("<If", _F32, value))


def boolean(key: str, value: bool) -> KeyValue:
    return KeyValue(key, struct.pack("<I?", _BOOL, value))


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key, struct.pack("<I", _STRING) + _string(value.encode("utf-8", "replace")))


def texts(key: str, values: Sequence[bytes]) -> KeyValue:
    return KeyValue(key, struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(map(_string, values)))


def i32s(key: str, values: Sequence[int]) -> KeyValue:
    return KeyValue(key, struct.pack(f"<IIQ{len(values)}i", _ARRAY, _I32, len(values), *values))


def f32s(key: str, values: Sequence[float]) -> KeyValue:
    return KeyValue(key, struct.pack(f"<IIQ{len(values)}f", _ARRAY, _F32, len(values), *values))


def booleans(key: str, values: Sequence[bool]) -> KeyValue:
    return KeyValue(key, struct.pack("<IIQ", _ARRAY, _BOOL, len(values)) + bytes(map(int, values)))


def integers(entry: KeyValue) -> tuple[int, ...]:
    """The value of an entry that is an integer, or an array of them; empty for any other type."""
    (kind,) = struct.unpack_from("<I", entry.encoded)
    if kind in _INTEGERS:
        return struct.unpack_from(_INTEGERS[kind], entry.encoded, 4)
    if kind == _ARRAY:
        element, count = struct.unpack_from("<IQ", entry.encoded, 4)
        if element in _INTEGERS:
            return struct.unpack_from(f"<{count}{_INTEGERS[element][1]}", entry.encoded, 16)
    return ()


def tensor_bytes(type_name: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor without padding. Raises UsageError when its rows do not divide into the type's blocks."""
    kind = BY_NAME[type_name]
    if shape[0] % kind.block:
        raise UsageError(f"rows of {shape[0]} weights do not divide into the blocks of {kind.block} of {type_name}")
    return math.prod(shape) // kind.block * kind.width


def layout(metadata: Iterable[KeyValue], tensors: Sequence[Placed]) -> Layout:
    """The header and offsets of a file with these entries and tensors, in this order."""
    entries = list(metadata)
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)))
    for entry in entries:
        out += _string(entry.key.encode()) + entry.encoded
    relative, position = [], 0
    for tensor in tensors:
        relative.append(position)
        out += _string(tensor.name.encode()) + struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        out += struct.pack("<IQ", BY_NAME[tensor.target].number, position)
        position += _padded(tensor_bytes(tensor.target, tensor.shape))
    out += bytes(-len(out) % ALIGNMENT)
    return Layout(bytes(out), tuple(len(out) + offset for offset in relative), len(out) + position)


def divide(tensors: Sequence[Placed], largest: int) -> tuple[tuple[int, int], ...]:
    """Ranges of tensors for files of at most `largest` bytes of weights each, filled in order.

    A tensor is never cut, so one that is larger has a file of its own (tools/gguf-split of llama.cpp does the same).
    """
    if largest < 1:
        raise UsageError("the largest size of a split file must be at least one byte")
    ranges, first, size = [], 0, 0
    for index, tensor in enumerate(tensors):
        width = _padded(tensor_bytes(tensor.target, tensor.shape))
        if size + width > largest and index > first:
            ranges.append((first, index))
            first, size = index, 0
        size += width
    ranges.append((first, len(tensors)))
    if len(ranges) > _MOST_SHARDS:
        raise UsageError(f"{len(ranges)} split files would be needed; their names have room for {_MOST_SHARDS}")
    return tuple(ranges)


def split_entries(number: int, count: int, tensors: int) -> tuple[KeyValue, ...]:
    """The metadata of split file `number` (from 0) of `count`, in llama-gguf-split's order; `tensors` in all files."""
    return _u16("split.no", number), i32("split.tensors.count", tensors), _u16("split.count", count)


def shard_paths(out: Path, count: int) -> tuple[Path, ...]:
    """`model.gguf` becomes `model-00001-of-00003.gguf` and so on, the names by which readers find the others."""
    stem = out.name.removesuffix(".gguf")
    return tuple(out.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1))


def _u16(key: str, value: int) -> KeyValue:
    return KeyValue(key, struct.pack("<IH", _U16, value))


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _string(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw
