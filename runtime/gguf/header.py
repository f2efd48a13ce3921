"""Parses a GGUF header with strict checks of lengths, counts, types, shapes and offsets in exact integers.

The layout is that of ggml's docs/gguf.md, versions 2 and 3, little-endian. Everything that ggml/src/gguf.cpp of
llama.cpp refuses is refused here before native code sees the file. No weights are read, and the vocabulary stays bytes
until it is needed.
"""

from __future__ import annotations

import hashlib
import math
import struct
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from types import MappingProxyType

from runtime.base.errors import BadModelFile, Incompatible
from runtime.base.types import ByteCount
from runtime.gguf.tensor_name import NamedTensor
from runtime.gguf.types import BY_NUMBER, REMOVED

PULL_AGAIN = "the file is damaged or incomplete: pull it again"

_CONVERSION = "use a GGUF conversion of the model"
_INT64_MAX = 2**63 - 1
_RUN = 4096  # strings that are stepped over between two checks
_MAX_KEY = 65535
_MAX_TENSOR_NAME = 63
_MAX_DIMS = 4
SCALARS = {
    0: ("u8", struct.Struct("<B")),
    1: ("i8", struct.Struct("<b")),
    2: ("u16", struct.Struct("<H")),
    3: ("i16", struct.Struct("<h")),
    4: ("u32", struct.Struct("<I")),
    5: ("i32", struct.Struct("<i")),
    6: ("f32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<B")),
    10: ("u64", struct.Struct("<Q")),
    11: ("i64", struct.Struct("<q")),
    12: ("f64", struct.Struct("<d")),
}
_STRING, _ARRAY = 8, 9
_ARRAY_CODES = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "B"}
_ARRAY_CODES |= {"u64": "Q", "i64": "q", "f64": "d"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class HeaderTruncated(BadModelFile):
    """The given bytes end before the header does. Read at least `needed` bytes of the file and try again."""

    def __init__(self, path: Path, needed: int) -> None:
        super().__init__(path, f"the header goes on beyond the bytes read; at least {needed} are needed")
        self.needed = needed


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array of the metadata as bytes. `type` is "str", "u32", "f32", ...; `count` is the number of elements."""

    type: str
    count: int
    data: bytes = field(repr=False)

    def __len__(self) -> int:
        return self.count

    def raw_strings(self) -> list[bytes]:
        """All strings as bytes, because a token need not be UTF-8."""
        if self.type != "str":
            raise TypeError(f"an array of {self.type} holds no strings")
        data, at, unpack, strings = self.data, 0, _U64.unpack_from, []
        for _ in repeat(None, self.count):
            begin = at + 8
            at = begin + unpack(data, at)[0]
            strings.append(data[begin:at])
        return strings

    def strings(self) -> tuple[str, ...]:
        """All strings, with invalid UTF-8 replaced."""
        return tuple(raw.decode("utf-8", "replace") for raw in self.raw_strings())

    def numbers(self) -> tuple[int | float, ...]:
        """All numbers; booleans are 0 and 1."""
        if self.type == "str":
            raise TypeError("an array of strings holds no numbers")
        values = array(_ARRAY_CODES[self.type], self.data)
        if sys.byteorder == "big":
            values.byteswap()
        return tuple(values)


Value = bool | int | float | str | ArrayValue


@dataclass(frozen=True, slots=True)
class TensorInfo(NamedTensor):
    """One tensor: `shape` in ggml order (ne0, the row, first), `type` like "Q4_K", `offset` and `size` in bytes
    within its file, `file` the index of that file in `ModelCard.files`."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: ByteCount
    file: int = 0

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A file without its weights, which begin at `data_offset`. `digest` is the SHA-256 of header and file size."""

    version: int
    alignment: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_size: ByteCount
    digest: str


def parse_header(data: bytes | bytearray | memoryview, file_size: int, path: Path) -> Header:
    """Parse the first bytes of a GGUF file of `file_size` bytes; `path` only names it in errors.

    Raises `HeaderTruncated` if `data` ends before the header, `BadModelFile` if the structure is broken or the weights
    do not fit the file, `Incompatible` for byte orders, versions and types that the engine cannot read.
    """
    reader = _Reader(bytes(data), file_size, path)
    version = _preamble(reader)
    tensor_count, metadata_count = reader.u64("the number of tensors"), reader.u64("the number of keys")
    for count, least, what in ((tensor_count, 33, "tensors"), (metadata_count, 14, "keys")):
        if count > _INT64_MAX or count * least > file_size:
            raise reader.bad(f"claims {count} {what}, more than {file_size} bytes can hold", PULL_AGAIN)
    metadata = _metadata(reader, metadata_count)
    alignment = _alignment(metadata, reader)
    raw_tensors = [_tensor(reader) for _ in range(tensor_count)]
    data_offset = -(-reader.at // alignment) * alignment
    tensors = _place(raw_tensors, data_offset, alignment, reader)
    digest = hashlib.sha256(memoryview(reader.data)[: reader.at])
    digest.update(file_size.to_bytes(8, "little"))
    return Header(
        version=version,
        alignment=alignment,
        metadata=MappingProxyType(metadata),
        tensors=tensors,
        data_offset=data_offset,
        file_size=ByteCount(file_size),
        digest=digest.hexdigest(),
    )


class _Reader:
    """A cursor that never reads beyond its bytes and knows whether the file continues."""

    def __init__(self, data: bytes, file_size: int, path: Path) -> None:
        self.data = data
        self.at = 0
        self.file_size = file_size
        self.path = path

    def bad(self, problem: str, hint: str | None = PULL_AGAIN) -> BadModelFile:
        return BadModelFile(self.path, problem, hint=hint)

    def need(self, length: int, what: str) -> None:
        """Raises an error unless `length` more bytes are available."""
        end = self.at + length
        if end <= len(self.data):
            return
        if end > self.file_size:
            raise self.bad(f"{what} at byte {self.at} would need {length} bytes, but the file ends at {self.file_size}")
        raise HeaderTruncated(self.path, end)

    def u32(self, what: str) -> int:
        self.need(4, what)
        self.at += 4
        return int(_U32.unpack_from(self.data, self.at - 4)[0])

    def u64(self, what: str) -> int:
        self.need(8, what)
        self.at += 8
        return int(_U64.unpack_from(self.data, self.at - 8)[0])

    def string(self, what: str, longest: int | None = None) -> str:
        start, length = self.at, self.u64(f"the length of {what}")
        if longest is not None and length > longest:
            raise self.bad(f"{what} at byte {start} is {length} bytes long; at most {longest} are allowed")
        self.need(length, what)
        raw = self.data[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad(f"{what} at byte {start} is not valid UTF-8") from None

    def skip_strings(self, count: int, what: str) -> None:
        """Skip `count` strings in runs, because a vocabulary has 100 000s. Only a failed run is checked one by one."""
        data, unpack = self.data, _U64.unpack_from
        for first in range(0, count, _RUN):
            length = min(_RUN, count - first)
            at = self.at
            try:
                for _ in repeat(None, length):
                    at += 8 + unpack(data, at)[0]
            except (struct.error, OverflowError, ValueError, IndexError):
                at = len(data) + 1
            if at <= len(data):
                self.at = at
                continue
            for number in range(first, first + length):
                name = f"string {number} of {what}"
                size = self.u64(name)
                self.need(size, name)
                self.at += size


def _preamble(reader: _Reader) -> int:
    """Check magic and version. Other file formats are named in the error."""
    data = reader.data
    if reader.file_size == 0:
        raise reader.bad("the file is empty")
    reader_magic = data[:4]
    if reader_magic != b"GGUF" and not (len(reader_magic) < 4 and reader.file_size > 4):
        raise _not_gguf(reader)
    reader.need(8, "magic and version")
    reader.at = 4
    version = reader.u32("the version")
    if version in (2, 3):
        return version
    if version != 0 and version & 0xFFFF == 0:
        raise Incompatible(
            f"{reader.path}: a big-endian GGUF file; this engine reads little-endian ones",
            hint="pull a little-endian file: those without 'be' in their name",
        )
    if version == 0:
        raise reader.bad("GGUF version 0 does not exist")
    raise Incompatible(
        f"{reader.path}: GGUF version {version}; this engine reads 2 and 3",
        hint="pull a newer conversion of the model" if version == 1 else PULL_AGAIN,
    )


def _not_gguf(reader: _Reader) -> BadModelFile:
    start = reader.data[:512]
    text = start.lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return reader.bad(
            "a Git LFS pointer (a few lines of text), not the model itself", "pull the file itself: dsr pull"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return reader.bad("a web page, not a GGUF file", "download the file itself, not the page that shows it")
    if start.startswith(b"PK\x03\x04"):
        return reader.bad("a zip archive (perhaps a PyTorch checkpoint), not a GGUF file", _CONVERSION)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return reader.bad("a Python pickle, which is never loaded", _CONVERSION)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < reader.file_size:
        return reader.bad("a safetensors checkpoint, not a GGUF file", _CONVERSION)
    if start[:4] in (b"tjgg", b"ggml", b"lmgg", b"fmgg"):
        return reader.bad("an old GGML file, from before GGUF", _CONVERSION)
    return reader.bad(f"not a GGUF file: it begins with {start[:4]!r}", "give the path of a .gguf file")


def _metadata(reader: _Reader, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for number in range(count):
        key = reader.string(f"key {number}", _MAX_KEY)
        if not key:
            raise reader.bad(f"key {number} is empty")
        if key in metadata:
            raise reader.bad(f"the key {key} appears twice")
        metadata[key] = _value(reader, key)
    return metadata


def _value(reader: _Reader, key: str) -> Value:
    kind = reader.u32(f"the type of {key}")
    if kind == _STRING:
        return reader.string(key)
    if kind == _ARRAY:
        return _array(reader, key)
    if kind not in SCALARS:
        raise reader.bad(f"{key} has the unknown type {kind}")
    name, code = SCALARS[kind]
    reader.need(code.size, key)
    value: int | float = code.unpack_from(reader.data, reader.at)[0]
    reader.at += code.size
    if name != "bool":
        return value
    if value not in (0, 1):
        raise reader.bad(f"{key} is a boolean with the value {value}")
    return bool(value)


def _array(reader: _Reader, key: str) -> ArrayValue:
    kind, count = reader.u32(f"the element type of {key}"), reader.u64(f"the length of {key}")
    if kind == _ARRAY:
        raise reader.bad(f"{key} is an array of arrays, which no reader of GGUF supports")
    if kind != _STRING and kind not in SCALARS:
        raise reader.bad(f"{key} is an array of the unknown type {kind}")
    width = 8 if kind == _STRING else SCALARS[kind][1].size
    if count * width > reader.file_size:
        raise reader.bad(f"{key} claims {count} elements, more than {reader.file_size} bytes can hold")
    reader.need(count * width, key)
    start = reader.at
    if kind == _STRING:
        reader.skip_strings(count, key)
        return ArrayValue("str", count, reader.data[start : reader.at])
    reader.at += count * width
    name = SCALARS[kind][0]
    raw = reader.data[start : reader.at]
    if name == "bool" and raw.translate(None, b"\0\1"):
        raise reader.bad(f"{key} holds booleans that are neither 0 nor 1")
    return ArrayValue(name, count, raw)


def _alignment(metadata: Mapping[str, Value], reader: _Reader) -> int:
    alignment = metadata.get("general.alignment", 32)
    if isinstance(alignment, bool) or not isinstance(alignment, int):
        raise reader.bad("general.alignment is not an integer")
    if alignment <= 0 or alignment & (alignment - 1):
        raise reader.bad(f"general.alignment is {alignment}, not a power of two")
    return alignment


def _tensor(reader: _Reader) -> TensorInfo:
    """One entry of the tensor list; its offset is still relative to the data."""
    name = reader.string("a tensor's name", _MAX_TENSOR_NAME)
    if not name:
        raise reader.bad(f"a tensor at byte {reader.at} has no name")
    dims = reader.u32(f"the dimensions of {name}")
    if not 1 <= dims <= _MAX_DIMS:
        raise reader.bad(f"tensor {name} has {dims} dimensions; 1 to {_MAX_DIMS} are allowed")
    shape = tuple(reader.u64(f"the shape of {name}") for _ in range(dims))
    if 0 in shape:
        raise reader.bad(f"tensor {name} has a dimension of 0")
    elements = math.prod(shape)
    if elements > _INT64_MAX:
        raise reader.bad(f"tensor {name} has {elements} elements, more than 63 bits can count")
    number = reader.u32(f"the type of {name}")
    if number in REMOVED:
        raise Incompatible(
            f"{reader.path}: tensor {name} has the type {REMOVED[number]}, which the engine no longer reads",
            hint="pull a newer conversion of the model, for example Q4_0 or Q4_K_M",
        )
    if number not in BY_NUMBER:
        raise reader.bad(f"tensor {name} has the unknown type {number}")
    kind = BY_NUMBER[number]
    if shape[0] % kind.block:
        raise reader.bad(f"tensor {name} has rows of {shape[0]} elements, not multiples of {kind.block} ({kind.name})")
    size = elements // kind.block * kind.width
    if size > _INT64_MAX:
        raise reader.bad(f"tensor {name} would be {size} bytes, more than 63 bits can count")
    return TensorInfo(name, shape, kind.name, reader.u64(f"the offset of {name}"), ByteCount(size))


def _place(tensors: list[TensorInfo], data_offset: int, alignment: int, reader: _Reader) -> tuple[TensorInfo, ...]:
    """Check names and offsets and make the offsets absolute.

    ggml wants the tensors one after another in the order of the list, each padded to the alignment, so any other offset
    is unaligned, overlapping or beyond the end, and is refused by the engine as well.
    """
    seen: set[str] = set()
    placed = []
    expected = 0
    for tensor in tensors:
        if tensor.name in seen:
            raise reader.bad(f"the tensor {tensor.name} appears twice")
        seen.add(tensor.name)
        if tensor.offset != expected:
            wrong = (
                "is not aligned"
                if tensor.offset % alignment
                else "overlaps"
                if tensor.offset < expected
                else "leaves a gap"
            )
            raise reader.bad(f"tensor {tensor.name} has the offset {tensor.offset} instead of {expected}: it {wrong}")
        expected += -(-tensor.size // alignment) * alignment
        placed.append(TensorInfo(tensor.name, tensor.shape, tensor.type, data_offset + tensor.offset, tensor.size))
    if placed:
        missing = placed[-1].offset + placed[-1].size - reader.file_size
        if missing > 0:
            raise reader.bad(
                f"the weights are cut short: {missing} bytes ({ByteCount(missing)}) are missing at the end"
            )
    return tuple(placed)
