"""Asks a node (an RPC server of llama.cpp) for its devices and measures the link to it.

The engine's own client aborts if nobody listens and waits forever if nobody answers. So this uses a plain socket with
a time limit for each reply and for all of them.
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
from runtime.nodes.addresses import MOST_NODES, Address
from runtime.nodes.protocol import HELLO_REPLY, HELLO_REQUEST, PROTOCOL, REPLY_HEAD, REQUEST_HEAD, TENSOR, Command

_SECONDS = 3.0  # an idle node answers at once; one that serves another client does not answer at all
_TOGETHER = 10.0  # the same for all replies, as a multiple
_WRONG = "run dsr node serve on that machine, with the same release of dsr"
_MOST_MEMORY = 1 << 50  # bytes of one device; more is no memory
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

    Raises NetworkError if nobody listens, answers within `seconds` or answers as a node does, Incompatible for another
    protocol version.
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
            [count] = struct.unpack("<I", node.call(Command.DEVICE_COUNT, b"", 4))
            round_trips.append(time.perf_counter() - started)
        if not 0 < count <= MOST_NODES:  # the engine has no more devices either
            raise NetworkError(f"node {address} offers {count} devices", hint=_WRONG)
        devices = tuple(
            NodeDevice(*struct.unpack("<QQ", node.call(Command.GET_DEVICE_MEMORY, struct.pack("<I", index), 16)))
            for index in range(count)
        )
        if any(device.memory_total > _MOST_MEMORY for device in devices):
            raise NetworkError(f"node {address} says that it has more memory than any machine", hint=_WRONG)
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
            yield _Connection(connection, address, seconds)
    except TimeoutError:
        raise NetworkError(
            f"node {address} does not answer within {seconds:g} s: it is stopped, busy with another client, or cut off",
            hint="start dsr node serve there again, or wait until the other client is done",
        ) from None
    except ConnectionRefusedError:
        raise NetworkError(
            f"node {address}: no server listens at this address",
            hint="start it on that machine with: dsr node serve --host ADDRESS",
        ) from None
    except OSError as error:
        raise NetworkError(f"node {address} cannot be reached: {error.strerror or error}", hint=_WRONG) from None


class _Connection:
    def __init__(self, connection: socket.socket, address: Address, seconds: float) -> None:
        self._connection = connection
        self._address = address
        self._seconds = seconds
        self._end = time.monotonic() + _TOGETHER * seconds

    def call(self, command: int, body: bytes, reply: int) -> bytes:
        """Sends a command and returns its reply of `reply` bytes."""
        self.send(command, body)
        until = min(time.monotonic() + self._seconds, self._end)
        [size] = REPLY_HEAD.unpack(self._read(REPLY_HEAD.size, until))
        if size != reply:
            raise NetworkError(
                f"node {self._address} answers with {size} bytes where {reply} were expected", hint=_WRONG
            )
        return self._read(reply, until)

    def send(self, command: int, body: bytes) -> None:
        self._connection.settimeout(self._seconds)
        self._connection.sendall(REQUEST_HEAD.pack(command, len(body)))
        self._connection.sendall(body)

    def _read(self, count: int, until: float) -> bytes:
        data = b""
        while len(data) < count:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            part = self._connection.recv(count - len(data))
            if not part:
                raise NetworkError(f"node {self._address} closed the connection", hint=_WRONG)
            data += part
        return data

    def greet(self) -> tuple[int, int, int]:
        # Without capabilities the connection stays plain TCP.
        major, minor, patch, *_ = HELLO_REPLY.unpack(self.call(Command.HELLO, HELLO_REQUEST, HELLO_REPLY.size))
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
        buffer, room = struct.unpack("<QQ", self.call(Command.ALLOC_BUFFER, struct.pack("<IQ", 0, size), 16))
        if not buffer or room < size:
            raise NetworkError(
                f"node {self._address} has no {ByteCount(size)} of memory left",
                hint="to see the free memory of each node: dsr node list",
            )
        [start] = struct.unpack("<Q", self.call(Command.BUFFER_GET_BASE, struct.pack("<Q", buffer), 8))
        strides = (1, size, size, size)
        tensor = TENSOR.pack(
            1, _BYTES, buffer, size, 1, 1, 1, *strides, 0, *[0] * 16, 0, *[0] * 10, 0, 0, start, b"link", 0
        )
        data = tensor + bytes(1 + 8 + size)  # not to be cached; an offset of 0; the data
        started = time.perf_counter()
        self.send(Command.SET_TENSOR, data)
        # The node sends no reply to that. The next reply comes after it, because messages are handled in order.
        self.call(Command.DEVICE_COUNT, b"", 4)
        seconds = time.perf_counter() - started
        self.send(Command.FREE_BUFFER, struct.pack("<Q", buffer))
        return seconds
