"""Moves bits between stored blocks and the values of a field: whole columns of bytes at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.round.layouts import Places


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Bits that lie alike in many values: bits `low` and up of values[value] are bits `at` and up of a block's byte.

    `value` and `byte` are (places,); `mask` has a one for each bit, from bit 0 on."""

    value: NDArray[np.intp]
    byte: NDArray[np.intp]
    low: int
    at: int
    mask: int


def moves_of(places: Places) -> tuple[Move, ...]:
    """The fewest moves for a field whose value v has its bit b at places[v, b]."""
    alike: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for value, bits in enumerate(places.tolist()):
        low = 0
        for bit in range(1, len(bits) + 1):
            if bit == len(bits) or bits[bit] != bits[bit - 1] + 1 or bits[bit] % 8 == 0:
                alike.setdefault((low, bits[low] % 8, bit - low), []).append((value, bits[low] // 8))
                low = bit
    found = []
    for (low, at, count), pairs in alike.items():
        value, byte = np.array(pairs, np.intp).T
        found.append(Move(value, byte, low, at, (1 << count) - 1))
    return tuple(found)


def taken(stored: NDArray[np.uint8], moves: tuple[Move, ...], count: int) -> NDArray[np.uint16]:
    """The `count` values of a field, (blocks, values, rows), from the bytes of blocks, (blocks, bytes, rows)."""
    found = np.zeros((len(stored), count, stored.shape[2]), np.uint16)
    for move in moves:
        found[:, move.value] |= ((stored[:, move.byte] >> move.at) & move.mask).astype(np.uint16) << move.low
    return found


def put(stored: NDArray[np.uint8], moves: tuple[Move, ...], values: NDArray[np.uint16]) -> None:
    """Add values, (blocks, values, rows), to the bytes of blocks, (blocks, bytes, rows), whose bits there are 0."""
    for move in moves:
        stored[:, move.byte] |= ((values[:, move.value] >> move.low) & move.mask).astype(np.uint8) << move.at
