"""What a worker of llama.cpp's RPC backend answers, and how good the way to it is.

Native code aborts where nobody listens and waits for ever where nobody answers, so this is asked through a plain
socket with a time limit, in the messages of ggml/src/ggml-rpc/ggml-rpc.cpp: a command in one byte, the length of its
body in eight, the body; a reply is a length in eight and a body; all numbers little-endian, structures packed.
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

PROTOCOL = (7, 0, 0)  # RPC_PROTO_*_VERSION of ggml-rpc.h, at the engine's pinned release; the last counts operations
_SECONDS = 3.0  # a worker that is idle answers at once; one that serves somebody else does not answer at all
_ALLOC_BUFFER, _GET_BASE, _FREE_BUFFER, _SET_TENSOR, _MEMORY, _HELLO, _DEVICE_COUNT = 0, 3, 4, 6, 11, 14, 15
_HELLO_REQUEST, _HELLO_REPLY = bytes(24), struct.Struct("<4B24s")
# struct rpc_tensor: id, type, buffer, ne[4], nb[4], op, op_params[16], flags, src[10], view_src, view_offs, data,
# name[64], use_count
_TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64si")
_BYTES = 24  # GGML_TYPE_I8
_SMALL, _LARGE, _LONG_ENOUGH = 64 << 10, 16 << 20, 0.25  # what is sent to measure a link, in bytes and seconds
_ROUND_TRIPS = 5


@dataclass(frozen=True, slots=True)
class NodeDevice:
    """Memory in bytes, as the worker tells it. llama.cpp's own worker tells all memory of its machine as free."""

    memory_free: int
    memory_total: int


@dataclass(frozen=True, slots=True)
class Node:
    """What a worker answered. `round_trip` in seconds, `bandwidth` towards it in bytes per second."""

    address: Address
    version: tuple[int, int, int]
    devices: tuple[NodeDevice, ...]
    round_trip: float
    bandwidth: float = 0.0

    @property
    def memory_free(self) -> ByteCount:
        return ByteCount(sum(device.memory_free for device in self.devices))


def ask(address: Address, *, seconds: float = _SECONDS, bandwidth: bool = False) -> Node:
    """Greet the worker at `address` and ask for its devices; `bandwidth` sends it some megabytes to measure the link.

    Raises NetworkError where nobody listens or nobody answers within `seconds`, Incompatible for another protocol.
    """
    with _connected(address, seconds) as worker:
        version = worker.greet()
        if version != PROTOCOL:
            raise Incompatible(
                f"node {address} speaks RPC {'.'.join(map(str, version))}, this engine {'.'.join(map(str, PROTOCOL))}",
                hint="install the same release of dsr on all machines",
            )
        round_trips = []
        count = 0
        for _ in range(_ROUND_TRIPS):
            started = time.perf_counter()
            [count] = struct.unpack("<I", worker.call(_DEVICE_COUNT, b"", 4))
            round_trips.append(time.perf_counter() - started)
        if not 0 < count <= 64:
            raise Incompatible(f"node {address} offers {count} devices")
        devices = tuple(
            NodeDevice(*struct.unpack("<QQ", worker.call(_MEMORY, struct.pack("<I", index), 16)))
            for index in range(count)
        )
        measured = worker.bandwidth(min(round_trips)) if bandwidth else 0.0
        return Node(address, version, devices, min(round_trips), measured)


def is_reachable(address: Address, seconds: float = _SECONDS) -> bool:
    """Whether a connection is accepted: no, when the worker is gone or its machine is. A busy worker is reachable."""
    try:
        socket.create_connection((address.host, address.port), seconds).close()
    except OSError:
        return False
    return True


@contextmanager
def _connected(address: Address, seconds: float) -> Iterator[_Worker]:
    try:
        with socket.create_connection((address.host, address.port), seconds) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield _Worker(connection, address)
    except TimeoutError:
        raise NetworkError(
            f"node {address} does not answer within {seconds:g} s: it is stopped, busy for somebody else, or cut off"
        ) from None
    except ConnectionRefusedError:
        raise NetworkError(
            f"node {address}: nobody listens there", hint="start it on that machine with: dsr node serve --host ADDRESS"
        ) from None
    except OSError as error:
        raise NetworkError(f"node {address} cannot be reached: {error.strerror or error}") from None


class _Worker:
    def __init__(self, connection: socket.socket, address: Address) -> None:
        self._connection = connection
        self._address = address

    def call(self, command: int, body: bytes, reply: int) -> bytes:
        """Send a command whose reply has `reply` bytes."""
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
                    f"node {self._address} hangs up: it is no RPC worker, or one of another release",
                    hint="install the same release of dsr on all machines",
                )
            data += part
        return data

    def greet(self) -> tuple[int, int, int]:
        # No capabilities are offered, so the connection stays plain TCP.
        major, minor, patch, *_ = _HELLO_REPLY.unpack(self.call(_HELLO, _HELLO_REQUEST, _HELLO_REPLY.size))
        return major, minor, patch

    def bandwidth(self, round_trip: float) -> float:
        """Bytes per second towards the worker, by filling a buffer of its first device."""
        size = _SMALL
        while True:
            seconds = max(self._fill(size) - round_trip, 1e-6)
            if seconds >= _LONG_ENOUGH or size >= _LARGE:
                # The first time, memory was made ready for so much, here and there.
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
        # The worker does not answer that, and handles one message after another.
        self.call(_DEVICE_COUNT, b"", 4)
        seconds = time.perf_counter() - started
        self.send(_FREE_BUFFER, struct.pack("<Q", buffer))
        return seconds
