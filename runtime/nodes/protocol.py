"""The messages between the engine and a node: those of ggml/src/ggml-rpc/ggml-rpc.cpp in the pinned engine.

A request is a command (1 byte), the length of its body (8 bytes), the body. A reply is a length (8 bytes) and a body.
Numbers are little-endian, structures packed. The first request of a connection is HELLO.
"""

from __future__ import annotations

import struct
from enum import IntEnum

PROTOCOL = (7, 0, 0)  # RPC_PROTO_*_VERSION of ggml-rpc.h in the pinned engine; the last number counts operations


class Command(IntEnum):
    """enum rpc_cmd."""

    ALLOC_BUFFER = 0
    GET_ALIGNMENT = 1
    GET_MAX_SIZE = 2
    BUFFER_GET_BASE = 3
    FREE_BUFFER = 4
    BUFFER_CLEAR = 5
    SET_TENSOR = 6
    SET_TENSOR_HASH = 7
    GET_TENSOR = 8
    COPY_TENSOR = 9
    GRAPH_COMPUTE = 10
    GET_DEVICE_MEMORY = 11
    INIT_TENSOR = 12
    GET_ALLOC_SIZE = 13
    HELLO = 14
    DEVICE_COUNT = 15
    GRAPH_RECOMPUTE = 16
    MEMSET_TENSOR = 17


REQUEST_HEAD = struct.Struct("<BQ")
REPLY_HEAD = struct.Struct("<Q")
HELLO_REQUEST, HELLO_REPLY = bytes(24), struct.Struct("<4B24s")
# struct rpc_tensor: id, type, buffer, ne[4], nb[4], op, op_params[16], flags, src[10], view_src, view_offs, data,
# name[64], use_count
TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64si")
SET_TENSOR_HEAD = TENSOR.size + 1 + 8  # a flag that asks to cache the data, and the offset

# Bytes of each request's body. SET_TENSOR and GRAPH_COMPUTE have no fixed length.
REQUEST_SIZES = {
    Command.ALLOC_BUFFER: 12,
    Command.GET_ALIGNMENT: 4,
    Command.GET_MAX_SIZE: 4,
    Command.BUFFER_GET_BASE: 8,
    Command.FREE_BUFFER: 8,
    Command.BUFFER_CLEAR: 9,
    Command.SET_TENSOR_HASH: TENSOR.size + 16,
    Command.GET_TENSOR: TENSOR.size + 16,
    Command.COPY_TENSOR: 2 * TENSOR.size,
    Command.GET_DEVICE_MEMORY: 4,
    Command.INIT_TENSOR: TENSOR.size,
    Command.GET_ALLOC_SIZE: 4 + 11 * TENSOR.size,
    Command.HELLO: 24,
    Command.DEVICE_COUNT: 0,
    Command.GRAPH_RECOMPUTE: 4,
    Command.MEMSET_TENSOR: TENSOR.size + 17,
}
# Bytes of each reply's body, for the requests that have one. GET_TENSOR says in its request how much it wants.
REPLY_SIZES = {
    Command.ALLOC_BUFFER: 16,
    Command.GET_ALIGNMENT: 8,
    Command.GET_MAX_SIZE: 8,
    Command.BUFFER_GET_BASE: 8,
    Command.SET_TENSOR_HASH: 1,
    Command.COPY_TENSOR: 1,
    Command.GET_DEVICE_MEMORY: 16,
    Command.GET_ALLOC_SIZE: 8,
    Command.HELLO: HELLO_REPLY.size,
    Command.DEVICE_COUNT: 4,
}
LONGEST_GRAPH = 256 << 20  # bytes of a GRAPH_COMPUTE; a graph of a hundred thousand tensors takes 30 MB


def absurd(command: Command, request: bytes, reply: bytes) -> str | None:
    """What is wrong with a reply of the right length, or None. The engine takes such numbers as they are."""
    if command is Command.ALLOC_BUFFER:
        [wanted] = struct.unpack_from("<Q", request, 4)
        buffer, size = struct.unpack("<QQ", reply)
        # Devices round sizes up.
        if buffer and not wanted <= size <= 2 * wanted + (64 << 20):
            return f"allocates {size} bytes where {wanted} were asked for"
    elif command is Command.GET_ALIGNMENT:
        [alignment] = struct.unpack("<Q", reply)
        if alignment.bit_count() != 1 or alignment > 1 << 20:
            return f"answers with an alignment of {alignment} bytes"
    elif command in (Command.GET_MAX_SIZE, Command.BUFFER_GET_BASE):
        if not any(reply):
            return f"answers with 0 to {command.name}"
    elif command is Command.GET_ALLOC_SIZE:
        [size] = struct.unpack("<Q", reply)
        if size >> 48:
            return f"wants to allocate {size} bytes for one tensor"
    return None
