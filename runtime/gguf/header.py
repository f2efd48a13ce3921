"""Parses a GGUF header with strict checks of lengths, counts, types, shapes and offsets in exact integers.

The layout is that of ggml's docs/gguf.md, versions 2 and 3, little-endian. Everything that ggml/src/gguf.cpp of
llama.cpp refuses is refused here before native code sees the file. What it loads without a word is loaded here too, for
example text that is not UTF-8. No weights are read, and the vocabulary stays bytes until it is needed.

Limits bound time and memory: a header of `LONGEST_HEADER` bytes is read in about two seconds.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import MappingProxyType

from runtime.base.errors import PULL_AGAIN, BadModelFile, Incompatible
from runtime.base.quoted import quoted_name
from runtime.base.types import ByteCount
from runtime.gguf.other_files import not_gguf
from runtime.gguf.tensor_name import NamedTensor
from runtime.gguf.types import BY_NUMBER, IK_LLAMA, ONLY_IK_LLAMA, REMOVED
from runtime.gguf.values import ARRAY, SCALARS, STRING, ArrayValue, Value

# What no program should have written, although all the bytes may be there.
ANOTHER_FILE = "check the file with dsr pull, or take another conversion of the model"
OTHER_QUANTIZATION = "take another quantization of the model, such as Q4_K_M or IQ4_XS"

# Far above known models: Gemma 3 has 262 144 tokens and a header of 16 MB, DeepSeek-R1 has 1147 tensors.
LONGEST_HEADER = 1 << 27
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 16
_MAX_STRINGS = 1 << 22

_INT64_MAX = 2**63 - 1
_RUN = 4096  # strings that are stepped over between two checks
_MAX_KEY = 65535
_MAX_TENSOR_NAME = 63
_MAX_DIMS = 4
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class HeaderTruncated(BadModelFile):
    """The given bytes end before the header does. Read at least `needed` bytes of the file and try again."""

    def __init__(self, path: Path, needed: int) -> None:
        super().__init__(path, f"the header goes on beyond the bytes read; at least {needed} are needed")
        self.needed = needed


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
    do not fit the file, `Incompatible` for byte orders, versions and types that the engine cannot read, and for numbers
    beyond the limits of this module.
    """
    reader = _Reader(bytes(data), file_size, path)
    version = _preamble(reader)
    tensor_count, metadata_count = reader.u64("the number of tensors"), reader.u64("the number of keys")
    for count, least, most, what in (
        (tensor_count, 33, _MAX_TENSORS, "tensors"),
        (metadata_count, 14, _MAX_KEYS, "keys"),
    ):
        if count > _INT64_MAX or count * least > file_size:
            raise reader.bad(f"claims {count} {what}, more than {file_size} bytes can hold", PULL_AGAIN)
        if count > most:
            raise reader.too_many(count, what, most)
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

    def bad(self, problem: str, hint: str | None = ANOTHER_FILE) -> BadModelFile:
        return BadModelFile(self.path, problem, hint=hint)

    def too_many(self, count: int, what: str, most: int) -> Incompatible:
        return Incompatible(
            f"{self.path}: it has {count} {what}, and dsr reads at most {most}",
            hint="no known model has so many: take another conversion of the model",
        )

    def need(self, length: int, what: str) -> None:
        """Raises an error unless `length` more bytes are available."""
        end = self.at + length
        if end <= len(self.data):
            return
        if end > self.file_size:
            raise self.bad(
                f"{what} at byte {self.at} would need {length} bytes, but the file ends at {self.file_size}", PULL_AGAIN
            )
        if end > LONGEST_HEADER:
            raise self.too_many(end, "bytes before its weights", LONGEST_HEADER)
        raise HeaderTruncated(self.path, end)

    def u32(self, what: str) -> int:
        self.need(4, what)
        self.at += 4
        return int(_U32.unpack_from(self.data, self.at - 4)[0])

    def u64(self, what: str) -> int:
        self.need(8, what)
        self.at += 8
        return int(_U64.unpack_from(self.data, self.at - 8)[0])

    def raw(self, what: str, longest: int | None = None) -> bytes:
        start, length = self.at, self.u64(f"the length of {what}")
        if longest is not None and length > longest:
            raise self.bad(f"{what} at byte {start} is {length} bytes long; at most {longest} are allowed")
        self.need(length, what)
        self.at += length
        return self.data[self.at - length : self.at]

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
    reader_magic = data[:4]
    if reader_magic != b"GGUF" and not (len(reader_magic) < 4 and reader.file_size > 4):
        raise reader.bad(*not_gguf(data, reader.file_size))
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
    newer = "a newer dsr may read it; else pull another conversion of the model"
    raise Incompatible(
        f"{reader.path}: GGUF version {version}; this engine reads 2 and 3",
        hint="pull a newer conversion of the model" if version == 1 else newer,
    )


def _metadata(reader: _Reader, count: int) -> dict[str, Value]:
    """The keys and their values. Bytes that are not UTF-8 are replaced, and keys stay distinct."""
    metadata: dict[str, Value] = {}
    for number in range(count):
        raw = reader.raw(f"key {number}", _MAX_KEY)
        if not raw:
            raise reader.bad(f"key {number} is empty")
        key = raw.decode("utf-8", "backslashreplace")
        if key in metadata:
            raise reader.bad(f"the key {quoted_name(key)} appears twice")
        metadata[key] = _value(reader, quoted_name(key))
    return metadata


def _value(reader: _Reader, key: str) -> Value:
    kind = reader.u32(f"the type of {key}")
    if kind == STRING:
        return reader.raw(key).decode("utf-8", "replace")
    if kind == ARRAY:
        return _array(reader, key)
    if kind not in SCALARS:
        raise reader.bad(f"{key} has the unknown type {kind}")
    name, code = SCALARS[kind]
    reader.need(code.size, key)
    value: int | float = code.unpack_from(reader.data, reader.at)[0]
    reader.at += code.size
    return bool(value) if name == "bool" else value


def _array(reader: _Reader, key: str) -> ArrayValue:
    kind, count = reader.u32(f"the element type of {key}"), reader.u64(f"the length of {key}")
    if kind == ARRAY:
        raise reader.bad(f"{key} is an array of arrays, which no reader of GGUF supports")
    if kind != STRING and kind not in SCALARS:
        raise reader.bad(f"{key} is an array of the unknown type {kind}")
    width = 8 if kind == STRING else SCALARS[kind][1].size
    if count * width > reader.file_size:
        raise reader.bad(f"{key} claims {count} elements, more than {reader.file_size} bytes can hold", PULL_AGAIN)
    if kind == STRING and count > _MAX_STRINGS:
        raise reader.too_many(count, f"entries of {key}", _MAX_STRINGS)
    reader.need(count * width, key)
    start = reader.at
    if kind == STRING:
        reader.skip_strings(count, key)
        return ArrayValue("str", count, reader.data[start : reader.at])
    reader.at += count * width
    return ArrayValue(SCALARS[kind][0], count, reader.data[start : reader.at])


def _alignment(metadata: Mapping[str, Value], reader: _Reader) -> int:
    alignment = metadata.get("general.alignment", 32)
    if isinstance(alignment, bool) or not isinstance(alignment, int):
        raise reader.bad("general.alignment is not an integer")
    if alignment <= 0 or alignment & (alignment - 1):
        raise reader.bad(f"general.alignment is {alignment}, not a power of two")
    return alignment


def _tensor(reader: _Reader) -> TensorInfo:
    """One entry of the tensor list; its offset is still relative to the data."""
    start = reader.at
    raw = reader.raw("a tensor's name", _MAX_TENSOR_NAME)
    if not raw:
        raise reader.bad(f"a tensor at byte {reader.at} has no name")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise reader.bad(f"a tensor's name at byte {start} is not valid UTF-8") from None
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
    if number not in BY_NUMBER:
        raise _other_type(reader, name, number)
    kind = BY_NUMBER[number]
    if shape[0] % kind.block:
        raise reader.bad(f"tensor {name} has rows of {shape[0]} elements, not multiples of {kind.block} ({kind.name})")
    size = elements // kind.block * kind.width
    if size > _INT64_MAX:
        raise reader.bad(f"tensor {name} would be {size} bytes, more than 63 bits can count")
    return TensorInfo(name, shape, kind.name, reader.u64(f"the offset of {name}"), ByteCount(size))


def _other_type(reader: _Reader, name: str, number: int) -> Incompatible:
    """The file is sound, but this engine does not know a type of its weights."""
    said = f"{reader.path}: tensor {quoted_name(name)} has the type"
    if number in REMOVED:
        return Incompatible(
            f"{said} {REMOVED[number]}, which the engine no longer reads",
            hint="pull a newer conversion of the model, for example Q4_0 or Q4_K_M",
        )
    if number in ONLY_IK_LLAMA:
        return Incompatible(
            f"{said} {ONLY_IK_LLAMA[number]}: the file was quantized for {IK_LLAMA}, and no other program reads it",
            hint=OTHER_QUANTIZATION,
        )
    return Incompatible(
        f"{said} {number}, unknown to this engine: the file was quantized for a newer engine or another program",
        hint=OTHER_QUANTIZATION,
    )


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
            raise reader.bad(
                f"tensor {tensor.name} has the offset {tensor.offset} instead of {expected}: it {wrong}", PULL_AGAIN
            )
        expected += -(-tensor.size // alignment) * alignment
        placed.append(TensorInfo(tensor.name, tensor.shape, tensor.type, data_offset + tensor.offset, tensor.size))
    if placed:
        missing = placed[-1].offset + placed[-1].size - reader.file_size
        if missing > 0:
            raise reader.bad(
                f"the weights are cut short: {missing} bytes ({ByteCount(missing)}) are missing at the end", PULL_AGAIN
            )
    return tuple(placed)
