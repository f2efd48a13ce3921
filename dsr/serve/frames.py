"""Frames between the server and an engine process: the length as four bytes, then one JSON document."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import asyncio

# Numbers of what no ask has: how the model opens, how busy the engine is, what was read from the disk. Asks and queries
# count from 1.
OPENING = 0
STANDING = -1
DISK = -2

_LENGTH = struct.Struct("<I")
_LONGEST = 1 << 30  # bytes; a body of the server is far smaller


def packed(value: Any) -> bytes:
    """`value` as one frame."""
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(data)) + data


def read_frame(stream: BinaryIO) -> Any | None:
    """The next value; None at the end of the stream, also in the middle of a frame."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    data = stream.read(_size(head))
    return _value(data) if len(data) == _size(head) else None


async def receive(stream: asyncio.StreamReader) -> Any | None:
    """As `read_frame`, for the event loop."""
    import asyncio

    try:
        head = await stream.readexactly(_LENGTH.size)
        return _value(await stream.readexactly(_size(head)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _size(head: bytes) -> int:
    size: int = _LENGTH.unpack(head)[0]
    if size > _LONGEST:
        raise ValueError(f"a frame of {size} bytes")
    return size


def _value(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "surrogatepass"))
