"""Asks a node (an RPC server of llama.cpp) for its devices and measures the link to it.

The engine's own client aborts if nobody listens and waits forever if nobody answers. So this uses a plain socket with
a time limit and the messages of ggml/src/ggml-rpc/ggml-rpc.cpp: a command (1 byte), the length of its body (8 bytes),
the body. A reply is a length (8 bytes) and a body. Numbers are little-endian, structures packed.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runtime.base.errors import Incompatible, NetworkError
from runtime.base.types import ByteCount
from runtime.nodes.addresses import Address

PROTOCOL = (7, 0, 0)  # RPC_PROTO_*_VERSION of ggml-rpc.h in the pinned engine; the last number counts operations
_SECONDS = 3.0  # an idle node answers at once; one that serves another client does not answer at all
_ALLOC_BUFFER, _GET_BASE, _FREE_BUFFER, _SET_TENSOR, _MEMORY, _HELLO, _DEVICE_COUNT = 0, 3, 4, 6, 11, 14, 15
_HELLO_REQUEST, _HELLO_REPLY = bytes(24), struct.Struct("<4B24s")
# struct rpc_tensor: id, type, buffer, ne[4], nb[4], op, op_params[16], flags, src[10], view_src, view_offs, data,
# name[64], use_count
_TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64si")
_BYTES = 24  # GGML_TYPE_I8
_SMALL, _LARGE, _LONG_ENOUGH = 64 << 10, 16 << 20, 0.25  # bytes and seconds of a link measurement
_ROUND_TRIPS = 5


@dataclass(frozen=True, slots=True)
class NodeDevice:
    """A device of a node with its memory in bytes. llama.cpp's own server reports all memory as free."""

    memory_free: int
    memory_total: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node that answered. `round_trip` in seconds, `bandwidth` to the node in bytes per second."""

    address: Address
    version: tuple[int, int, int]
    devices: tuple[NodeDevice, ...]
    round_trip: float
    bandwidth: float = 0.0

    @property
    def memory_free(self) -> ByteCount:
        return ByteCount(sum(device.memory_free for device in self.devices))


def ask(address: Address, *, seconds: float = _SECONDS, bandwidth: bool = False) -> Node:
    """The node at `address` with its devices. With `bandwidth`, a few megabytes are sent to measure the link.

    Raises NetworkError if nobody listens or answers within `seconds`, Incompatible for another protocol version.
    """
    with _connected(address, seconds) as node:
        version = node.greet()
        if version != PROTOCOL:
            raise Incompatible(
                f"node {address} speaks RPC {'.'.join(map(str, version))}, this engine {'.'.join(map(str, PROTOCOL))}",
                hint="install the same release of dsr on all machines",
            )
        round_trips = []
        count = 0
        for _ in range(_ROUND_TRIPS):
            started = time.perf_counter()
            [count] = struct.unpack("<I", node.call(_DEVICE_COUNT, b"", 4))
            round_trips.append(time.perf_counter() - started)
        if not 0 < count <= 64:
            raise Incompatible(f"node {address} offers {count} devices")
        devices = tuple(
            NodeDevice(*struct.unpack("<QQ", node.call(_MEMORY, struct.pack("<I", index), 16)))
            for index in range(count)
        )
        measured = node.bandwidth(min(round_trips)) if bandwidth else 0.0
        return Node(address, version, devices, min(round_trips), measured)


def is_reachable(address: Address, seconds: float = _SECONDS) -> bool:
    """Whether the node accepts connections. A busy node does; one that has ended does not."""
    try:
        socket.create_connection((address.host, address.port), seconds).close()
    except OSError:
        return False
    return True


@contextmanager
def _connected(address: Address, seconds: float) -> Iterator[_Connection]:
    try:
        with socket.create_connection((address.host, address.port), seconds) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield _Connection(connection, address)
    except TimeoutError:
        raise NetworkError(
            f"node {address} does not answer within {seconds:g} s: it is stopped, busy with another client, or cut off"
        ) from None
    except ConnectionRefusedError:
        raise NetworkError(
            f"node {address}: no server listens at this address",
            hint="start it on that machine with: dsr node serve --host ADDRESS",
        ) from None
    except OSError as error:
        raise NetworkError(f"node {address} cannot be reached: {error.strerror or error}") from None


class _Connection:
    def __init__(self, connection: socket.socket, address: Address) -> None:
        self._connection = connection
        self._address = address

    def call(self, command: int, body: bytes, reply: int) -> bytes:
        """Sends a command and returns its reply of `reply` bytes."""
        self.send(command, body)
        [size] = struct.unpack("<Q", self._read(8))
        if size != reply:
            raise Incompatible(f"node {self._address} answers with {size} bytes where {reply} were expected")
        return self._read(reply)

    def send(self, command: int, body: bytes) -> None:
        self._connection.sendall(struct.pack("<BQ", command, len(body)))
        self._connection.sendall(body)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._connection.recv(count - len(data))
            if not part:
                raise Incompatible(
                    f"node {self._address} closed the connection: it is not an RPC server, or one of another release",
                    hint="install the same release of dsr on all machines",
                )
            data += part
        return data

    def greet(self) -> tuple[int, int, int]:
        # Without capabilities the connection stays plain TCP.
        major, minor, patch, *_ = _HELLO_REPLY.unpack(self.call(_HELLO, _HELLO_REQUEST, _HELLO_REPLY.size))
        return major, minor, patch

    def bandwidth(self, round_trip: float) -> float:
        """Bytes per second to the node, measured by filling a buffer of its first device."""
        size = _SMALL
        while True:
            seconds = max(self._fill(size) - round_trip, 1e-6)
            if seconds >= _LONG_ENOUGH or size >= _LARGE:
                # The first transfer of this size also allocates memory on both sides.
                return size / (seconds if seconds >= _LONG_ENOUGH else max(self._fill(size) - round_trip, 1e-6))
            size = min(_LARGE, max(4 * size, int(size * _LONG_ENOUGH / seconds)))

    def _fill(self, size: int) -> float:
        buffer, room = struct.unpack("<QQ", self.call(_ALLOC_BUFFER, struct.pack("<IQ", 0, size), 16))
        if not buffer or room < size:
            raise NetworkError(f"node {self._address} has no {ByteCount(size)} of memory left")
        [start] = struct.unpack("<Q", self.call(_GET_BASE, struct.pack("<Q", buffer), 8))
        strides = (1, size, size, size)
        tensor = _TENSOR.pack(
            1, _BYTES, buffer, size, 1, 1, 1, *strides, 0, *[0] * 16, 0, *[0] * 10, 0, 0, start, b"link", 0
        )
        data = tensor + bytes(1 + 8 + size)  # not to be cached; an offset of 0; the data
        started = time.perf_counter()
        self.send(_SET_TENSOR, data)
        # The node sends no reply to that. The next reply comes after it, because messages are handled in order.
        self.call(_DEVICE_COUNT, b"", 4)
        seconds = time.perf_counter() - started
        self.send(_FREE_BUFFER, struct.pack("<Q", buffer))
        return seconds
