"""Packs unsigned integers into `width` bits each, the lowest bit first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 16  # a multiple of 8, so that every piece ends with a whole byte


def packed_size(count: int, width: int) -> int:
    """The bytes that `count` numbers of `width` bits take."""
    return (count * width + 7) // 8


def pack(values: NDArray[np.uint32], width: int) -> bytes:
    """Pack `values`, each below 2 ** `width`."""
    places = np.arange(width, dtype=np.uint32)
    pieces = (values[start : start + _AT_ONCE] for start in range(0, values.size, _AT_ONCE))
    return b"".join(
        np.packbits(((piece[:, None] >> places) & 1).astype(np.uint8), bitorder="little").tobytes() for piece in pieces
    )


def unpack(data: bytes, count: int, width: int) -> NDArray[np.uint32]:
    """Unpack `count` numbers that `pack` made."""
    weights = np.uint32(1) << np.arange(width, dtype=np.uint32)
    values = np.empty(count, np.uint32)
    for start in range(0, count, _AT_ONCE):
        number = min(_AT_ONCE, count - start)
        piece = np.frombuffer(data, np.uint8, packed_size(number, width), start * width // 8)
        bits = np.unpackbits(piece, count=number * width, bitorder="little").reshape(number, width)
        values[start : start + number] = (bits * weights).sum(axis=1, dtype=np.uint32)
    return values
