"""The values of GGUF metadata: scalars, texts, and arrays that stay bytes until somebody asks for their elements."""

from __future__ import annotations

import math
import struct
import sys
from array import array
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

# Number in the file -> name, format (enum gguf_metadata_value_type in docs/gguf.md).
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
STRING, ARRAY = 8, 9
_ARRAY_CODES = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "B"}
_ARRAY_CODES |= {"u64": "Q", "i64": "q", "f64": "d"}
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array of the metadata as bytes. `type` is "str", "u32", "f32", ...; `count` is the number of elements."""

    type: str
    count: int
    data: bytes = field(repr=False)

    def __len__(self) -> int:
        return self.count

    def raw_string(self, index: int) -> bytes:
        """One string as bytes, without the others."""
        at, unpack = 0, _U64.unpack_from
        for _ in repeat(None, index):
            at += 8 + unpack(self.data, at)[0]
        return self.data[at + 8 : at + 8 + unpack(self.data, at)[0]]

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
        values = self._array()
        return tuple(int(value != 0) for value in values) if self.type == "bool" else tuple(values)

    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        return math.isfinite(sum(self._array()))

    def _array(self) -> array[Any]:
        if self.type == "str":
            raise TypeError("an array of strings holds no numbers")
        values: array[Any] = array(_ARRAY_CODES[self.type], self.data)
        if sys.byteorder == "big":
            values.byteswap()
        return values


Value = bool | int | float | str | ArrayValue
