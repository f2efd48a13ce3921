"""The values of metadata entries that are arrays, read back from their bytes."""

from __future__ import annotations

import struct

from quant.gguf.writer import KeyValue


def texts(entry: KeyValue) -> list[str]:
    (count,), at, found = struct.unpack_from("<Q", entry.encoded, 8), 16, []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", entry.encoded, at)
        found.append(entry.encoded[at + 8 : at + 8 + length].decode())
        at += 8 + length
    return found


def numbers(entry: KeyValue) -> list[int]:
    return list(struct.unpack_from(f"<{(len(entry.encoded) - 16) // 4}i", entry.encoded, 16))
