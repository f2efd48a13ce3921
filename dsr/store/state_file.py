"""The file format of a kept state: a short head that can be searched, then the state and its checkpoints.

    head          magic, version, counts, identity; 64 bytes
    tokens        4 bytes each
    checkpoints   length and size of each; 12 bytes each
    state         the engine's own bytes
    checkpoints   their bytes, in the same order
    checksum      CRC-32 of everything before

All numbers are little-endian. The head gives the size of the file, so its numbers are used only after they agree with
the real size. CRC-32 finds accidents, not forgeries: the folder belongs to the user. It takes 0.08 s for 200 MB; BLAKE2
takes 0.22 s.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from runtime.base.common_prefix import common_length
from runtime.base.errors import VerificationFailed
from runtime.engine.backend import Checkpoint
from runtime.engine.kept_state import KeptState

VERSION = 1  # is part of `dsr.loading.state_identity`, so that files of another version are never opened

_MAGIC = b"DSRSTATE"
_HEAD = struct.Struct("<8sIIIQ32s4x")  # magic, version, tokens, checkpoints, bytes of the state, identity
_CHECKPOINT = struct.Struct("<IQ")
_CHECKSUM = struct.Struct("<I")
_PIECE = 8 << 20  # bytes; writing can be stopped after each piece


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file: `tokens`, and the length and size of each checkpoint."""

    tokens: tuple[int, ...]
    checkpoints: tuple[tuple[int, int], ...]
    state_size: int

    def reaches(self, tokens: Sequence[int], *, cuts_anywhere: bool) -> int:
        """How many of `tokens` a sequence with this state can begin with.

        It is the common prefix; if the model cannot go back to any length, the longest checkpoint in the prefix. At
        least one of `tokens` is left to decode.
        """
        same = min(common_length(self.tokens, tokens), len(tokens) - 1)
        if cuts_anywhere or same == len(self.tokens):
            return max(same, 0)
        return max((length for length, _ in self.checkpoints if length <= same), default=0)


def head_of(kept: KeptState) -> Head:
    return Head(kept.tokens, tuple((each.length, len(each.data)) for each in kept.checkpoints), len(kept.state))


def pieces(kept: KeptState, identity: str) -> Iterator[bytes | memoryview]:
    """The content of the file in pieces of at most 8 MiB. `identity` is a SHA-256 in hexadecimal."""
    head = head_of(kept)
    whole = [
        _HEAD.pack(_MAGIC, VERSION, len(head.tokens), len(head.checkpoints), head.state_size, bytes.fromhex(identity)),
        _packed(head.tokens),
        b"".join(_CHECKPOINT.pack(*each) for each in head.checkpoints),
        kept.state,
        *(each.data for each in kept.checkpoints),
    ]
    checksum = 0
    for one in whole:
        view = memoryview(one)
        for begin in range(0, len(view), _PIECE):
            piece = view[begin : begin + _PIECE]
            checksum = zlib.crc32(piece, checksum)
            yield piece
    yield _CHECKSUM.pack(checksum)


def size_of(kept: KeptState) -> int:
    """The bytes of its file."""
    return _total(head_of(kept))


def read_head(path: Path, identity: str) -> Head:
    """The head of a file, without its checksum. Raises as `read_state` does."""
    with path.open("rb") as file:
        head, _ = _read_head(file, path, identity)
        return head


def read_state(path: Path, identity: str) -> KeptState:
    """The whole file. Raises VerificationFailed for another identity and for changed bytes, OSError, MemoryError."""
    with path.open("rb") as file:
        head, checksum = _read_head(file, path, identity)
        blocks = []
        for size in (head.state_size, *(size for _, size in head.checkpoints)):
            block = file.read(size)
            checksum = zlib.crc32(block, checksum)
            blocks.append(block)
        if file.read(_CHECKSUM.size) != _CHECKSUM.pack(checksum):
            raise VerificationFailed(f"{path}: the checksum is wrong")
    state, *data = blocks
    lengths = (length for length, _ in head.checkpoints)
    checkpoints = (Checkpoint(length, len(each), each) for length, each in zip(lengths, data, strict=True))
    return KeptState(head.tokens, state, tuple(checkpoints))


def _read_head(file: BinaryIO, path: Path, identity: str) -> tuple[Head, int]:
    """The head, and the checksum of its bytes."""
    size = file.seek(0, 2)
    file.seek(0)
    packed = file.read(_HEAD.size)
    if len(packed) < _HEAD.size:
        raise VerificationFailed(f"{path}: ends after {size} bytes")
    magic, version, tokens, checkpoints, state_size, of = _HEAD.unpack(packed)
    if (magic, version, of.hex()) != (_MAGIC, VERSION, identity):
        raise VerificationFailed(f"{path}: is not a state of this model in this dsr")
    # Both counts are believed only once the file is large enough for them.
    table = 4 * tokens + _CHECKPOINT.size * checkpoints
    if size < _HEAD.size + table + state_size + _CHECKSUM.size:
        raise VerificationFailed(f"{path}: ends after {size} bytes")
    rest = file.read(table)
    if len(rest) < table:
        raise VerificationFailed(f"{path}: became shorter")
    marks = tuple(_CHECKPOINT.iter_unpack(rest[4 * tokens :]))
    head = Head(_unpacked(rest[: 4 * tokens]), marks, state_size)
    lengths = [length for length, _ in marks]
    if size != _total(head) or any(a >= b for a, b in pairwise([0, *lengths])) or max([0, *lengths]) > tokens:
        raise VerificationFailed(f"{path}: the sizes in it contradict each other")
    return head, zlib.crc32(rest, zlib.crc32(packed))


def _total(head: Head) -> int:
    table = 4 * len(head.tokens) + _CHECKPOINT.size * len(head.checkpoints)
    return _HEAD.size + table + head.state_size + sum(size for _, size in head.checkpoints) + _CHECKSUM.size


def _packed(tokens: Sequence[int]) -> bytes:
    numbers = array("I", tokens)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _unpacked(packed: bytes) -> tuple[int, ...]:
    numbers = array("I", packed)
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)
