"""One metadata entry of a GGUF file as bytes: the number of its type, then its value (ggml's docs/gguf.md)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One entry of a GGUF's metadata: `encoded` is the value type and the value as the file holds them."""

    key: str
    encoded: bytes


_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


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


def _string(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw
