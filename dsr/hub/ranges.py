"""Which bytes of a file are missing, and which connection fetches them. Pure.

Several connections fetch parts of one file. The parts are taken in order, so that the file grows from its start and can
be verified while it grows. When nothing is left to take, a connection without work takes the second half of the
largest part, so that a slow connection holds nothing up.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEAST = 512 << 10  # bytes: a smaller part is not worth a request of its own
_MOST_HOLES = 64  # 64 pairs of 19 digits fit into a record
RECORD = 4096  # bytes of a record: a page, which a killed process writes whole or not at all

Hole = tuple[int, int]


@dataclass(slots=True, eq=False)
class Part:
    """The bytes from `at` to `stop` (exclusive), which one connection fetches. `at` moves on as they come."""

    at: int
    stop: int

    @property
    def left(self) -> int:
        return self.stop - self.at


class Missing:
    """The missing bytes of a file: `holes` that no one fetches, and the parts in flight."""

    def __init__(self, holes: Iterable[Hole]) -> None:
        self._free = sorted(hole for hole in holes if hole[0] < hole[1])
        self._parts: list[Part] = []

    def take(self, most: int, *, steal: bool = False) -> Part | None:
        """The first `most` free bytes; with `steal` and none free, the second half of the largest part in flight."""
        if self._free:
            start, stop = self._free.pop(0)
            part = Part(start, min(start + most, stop))
            if part.stop < stop:
                self._free.insert(0, (part.stop, stop))
        else:
            largest = max(self._parts, key=lambda each: each.left, default=None)
            if not steal or largest is None or largest.left < 2 * LEAST or len(self._parts) >= _MOST_HOLES:
                return None
            middle = largest.at + largest.left // 2
            part, largest.stop = Part(middle, largest.stop), middle
        self._parts.append(part)
        return part

    def extend(self, part: Part, most: int) -> None:
        """Let the part go on with up to `most` of the free bytes that follow it."""
        if part in self._parts and self._free and self._free[0][0] == part.stop:
            start, stop = self._free.pop(0)
            part.stop = min(start + most, stop)
            if part.stop < stop:
                self._free.insert(0, (part.stop, stop))

    def give(self, part: Part) -> None:
        """Let the part be all free bytes of a file of which nothing is here."""
        [(part.at, part.stop)] = self._free
        self._free.clear()
        self._parts.append(part)

    def end(self, part: Part) -> None:
        """The connection is done with the part; what is left of it is free again."""
        if part in self._parts:
            self._parts.remove(part)
            if part.left:
                self._free = sorted([*self._free, (part.at, part.stop)])
            part.stop = part.at

    def end_all(self) -> None:
        for part in tuple(self._parts):
            self.end(part)

    @property
    def available(self) -> bool:
        """Whether there are bytes that no one fetches yet."""
        return bool(self._free)

    @property
    def in_flight(self) -> int:
        return len(self._parts)

    @property
    def holes(self) -> list[Hole]:
        """All missing bytes in order, also those in flight; neighbours are joined."""
        found: list[Hole] = []
        for start, stop in sorted([*self._free, *((part.at, part.stop) for part in self._parts if part.left)]):
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((start, stop))
        return found

    @property
    def size(self) -> int:
        return sum(stop - start for start, stop in self._free) + sum(part.left for part in self._parts)


def record(number: int, holes: Sequence[Hole]) -> bytes:
    """The holes as a record of RECORD bytes; of two records, the one with the larger number is newer."""
    text = f"{number} " + ",".join(f"{start}-{stop}" for start, stop in holes)
    line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
    assert len(line) <= RECORD
    return line.ljust(RECORD, b"\0")


def read_record(data: bytes, size: int) -> tuple[int, list[Hole]] | None:
    """Number and holes of a record about a file of `size` bytes; None for anything else."""
    found = re.fullmatch(rb"([0-9a-f]{8}) ((\d{1,19}) (\d{1,19}-\d{1,19}(?:,\d{1,19}-\d{1,19})*)?)\n\0*", data)
    if found is None or zlib.crc32(found[2]) != int(found[1], 16):
        return None
    pairs = [pair.split(b"-") for pair in (found[4] or b"").split(b",") if pair]
    holes = [(int(start), int(stop)) for start, stop in pairs]
    last = 0
    for start, stop in holes:
        if not last <= start < stop <= size:
            return None
        last = stop
    return int(found[3]), holes


def newest(records: Iterable[bytes], size: int) -> tuple[int, list[Hole]] | None:
    """The newest of the records that can be read."""
    readable = [found for data in records if (found := read_record(data, size)) is not None]
    return max(readable, key=lambda found: found[0], default=None)
