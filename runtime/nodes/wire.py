"""Passes the messages between an engine and a node on, and checks them.

The engine aborts at a wrong reply and waits for ever for a missing one; the server of a node reads whatever length a
request announces. What stands between them sees which side is at fault, and what it did.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from runtime.base.types import ByteCount
from runtime.nodes.protocol import (
    HELLO_REQUEST,
    LONGEST_GRAPH,
    REPLY_HEAD,
    REPLY_SIZES,
    REQUEST_HEAD,
    REQUEST_SIZES,
    SET_TENSOR_HEAD,
    Command,
    absurd,
)

_PIECE = 256 << 10  # bytes that are passed on at once
_SMALL = 64 << 10  # bytes; only tensors and graphs are longer, and pass in pieces
_SLOWEST = 10_000  # bytes per second; a node that is slower counts as silent
_UNSEEN = 8 << 20  # bytes that a tunnel and the systems at its ends may hold after they took them
_STALLED = 30.0  # seconds without a byte in the middle of a client's message
_MOST_DUE = 16  # replies that a client may wait for; the engine waits for one
# A connection without traffic is probed after `_QUIET` seconds and fails after `_PROBES` probes without an answer: this
# is how a machine that went away without a word is noticed.
_QUIET = 5
_PROBES = 3


@dataclass(frozen=True, slots=True)
class _Due:
    """A reply that a node owes: to which request, and its length."""

    command: Command
    request: bytes
    size: int


class _Wrong(Exception):
    """What one side did."""


class Wire:
    """The messages of one connection. `client` and `node` are connected sockets; `run` closes both.

    `node_fault` and `client_fault` say what that side did wrong ("closed the connection"), or are None. `refused` is
    the size of a buffer that the node could not allocate.
    """

    def __init__(
        self,
        client: socket.socket,
        node: socket.socket,
        *,
        seconds_per_byte: float = 0.0,
        idle: float | None = None,
        before: Callable[[Command, bytes, int], bytes] | None = None,
        lent: Callable[[int], None] | None = None,
    ) -> None:
        """`seconds_per_byte` of the way to the node, which has more time for its next answer after large tensors.

        A client that holds no buffer may be silent for `idle` seconds.

        `before` gets the command, the body or, of a long one, its head, and the length. It returns what to pass on.
        `lent` hears the bytes of all buffers of the client, whenever it gets another one.
        """
        self._client, self._node = client, node
        client.settimeout(idle)
        self._before = before
        self._lent = lent
        self._seconds_per_byte = seconds_per_byte
        self._unanswered = 0
        self._due: deque[_Due] = deque()
        self._buffers: dict[int, int] = {}
        self._closing = False
        self._sending = False
        self.heard = time.monotonic()  # when the node last did what it owes; a drip counts as little
        self._queued = 0
        self._lock = threading.Lock()
        self.node_fault: str | None = None
        self.client_fault: str | None = None
        self.refused: ByteCount | None = None
        for each in (client, node):
            watch_connection(each)

    def run(self) -> None:
        """Returns when one side closed its connection or did something wrong."""
        replies = threading.Thread(target=self._replies, daemon=True)
        replies.start()
        try:
            self._requests()
        finally:
            self.close()
            replies.join()
            self._client.close()
            self._node.close()

    def close(self) -> None:
        self._closing = True
        for each in (self._client, self._node):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def silence(self) -> float:
        """Seconds for which the node has owed an answer, or has not taken a request, without any progress."""
        now = time.monotonic()
        with self._lock:
            if not self._due and not self._sending:
                return 0.0
            queued = _queued(self._node)
            if queued < self._queued:
                self._progress(self._queued - queued)
            self._queued = queued
            on_the_way = 2 * min(self._unanswered, _UNSEEN) * self._seconds_per_byte
            return max(0.0, now - self.heard - on_the_way)

    def _progress(self, count: int) -> None:
        self.heard = min(time.monotonic(), self.heard + count / _SLOWEST)

    def _requests(self) -> None:
        try:
            while not self._closing:
                head = self._from_client(1, patient=True)
                head += self._from_client(REQUEST_HEAD.size - 1)
                command, size = self._checked(*REQUEST_HEAD.unpack(head))
                body = self._from_client(size if size <= _SMALL else SET_TENSOR_HEAD)
                if command is Command.HELLO:
                    body = HELLO_REQUEST  # without capabilities: another transport would go around this
                due = self._reply_to(command, body)
                if self._before is not None:
                    body = self._before(command, body, size)
                with self._lock:
                    if not self._due:
                        self.heard = time.monotonic()
                    if due is not None:
                        self._due.append(due)
                    if len(self._due) > _MOST_DUE:
                        raise _Wrong("asks on without taking the answers")
                    self._sending = True
                self._send(head + body)
                left = size - len(body)
                while left:
                    piece = self._from_client(min(left, _PIECE), at_least=1)
                    self._send(piece)
                    left -= len(piece)
                with self._lock:
                    self._sending = False
                    if command is Command.FREE_BUFFER:
                        self._buffers.pop(int.from_bytes(body, "little"), None)
        except _Wrong as wrong:
            self._fault("client", str(wrong))
        except (OSError, EOFError):
            self._closing = True  # the client went away, or the other thread closed its connection

    def _from_client(self, count: int, *, at_least: int | None = None, patient: bool = False) -> bytes:
        """`count` bytes, or `at_least` so many. `patient`: a client with buffers may be silent as long as it likes."""
        data = b""
        since = time.monotonic()
        while len(data) < (count if at_least is None else at_least):
            try:
                data += _received(self._client, count - len(data))
                since = time.monotonic()
            except TimeoutError:
                if not self._buffers or not (patient or time.monotonic() - since < _STALLED):
                    raise
        return data

    def _checked(self, number: int, size: int) -> tuple[Command, int]:
        try:
            command = Command(number)
        except ValueError:
            raise _Wrong(f"sends the command {number}, which does not exist") from None
        if command in REQUEST_SIZES:
            right = size == REQUEST_SIZES[command]
        elif command is Command.SET_TENSOR:
            right = SET_TENSOR_HEAD <= size <= SET_TENSOR_HEAD + self._largest()
        else:
            right = 12 <= size <= LONGEST_GRAPH
        if not right:
            raise _Wrong(f"sends {command.name} with {size} bytes")
        return command, size

    def _largest(self) -> int:
        """Bytes of the client's largest buffer."""
        with self._lock:
            return max(self._buffers.values(), default=0)

    def _reply_to(self, command: Command, body: bytes) -> _Due | None:
        if command is Command.GET_TENSOR:
            size = int.from_bytes(body[-8:], "little")
            if size > self._largest():
                raise _Wrong(f"asks for {size} bytes of a tensor")
            return _Due(command, body, size)
        return _Due(command, body, REPLY_SIZES[command]) if command in REPLY_SIZES else None

    def _send(self, data: bytes) -> None:
        with self._lock:
            self._unanswered += len(data)
        try:
            self._node.sendall(data)
        except OSError as error:
            # The thread that reads sees a closed connection too, but a time limit only the one that writes.
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                self._fault("node", f"cannot be reached: {error.strerror or error}")
            raise
        with self._lock:
            self._progress(len(data))

    def _replies(self) -> None:
        try:
            while True:
                [size] = REPLY_HEAD.unpack(self._heard_from_node(REPLY_HEAD.size))
                with self._lock:
                    due = self._due[0] if self._due else None
                if due is None:
                    raise _Wrong("sends bytes that nothing asked for")
                if size != due.size:
                    raise _Wrong(f"answers {due.command.name} with {size} bytes where {due.size} were expected")
                if size <= _SMALL:
                    body = self._heard_from_node(size)
                    self._judge(due, body)
                    self._replied(due)
                    self._pass_on(REPLY_HEAD.pack(size) + body)
                    continue
                self._pass_on(REPLY_HEAD.pack(size))
                while size:
                    piece = self._heard_from_node(min(size, _PIECE))
                    size -= len(piece)
                    if not size:
                        self._replied(due)
                    self._pass_on(piece)
        except _Wrong as wrong:
            self._fault("node", str(wrong))
        except EOFError:
            self._fault("node", "closed the connection")
        except OSError as error:
            reset = isinstance(error, ConnectionResetError)
            self._fault("node", "closed the connection" if reset else f"cannot be reached: {error.strerror or error}")
        self.close()

    def _pass_on(self, reply: bytes) -> None:
        try:
            self._client.sendall(reply)
        except OSError:
            self._closing = True  # the client went away
            raise

    def _heard_from_node(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = _received(self._node, count - len(data))
            data += part
            with self._lock:
                self._progress(len(part))
        return data

    def _replied(self, due: _Due) -> None:
        # Before the reply is passed on: the client may send its next request at once.
        with self._lock:
            self._due.popleft()
            self._unanswered = 0
            self.heard = time.monotonic()

    def _judge(self, due: _Due, reply: bytes) -> None:
        wrong = absurd(due.command, due.request, reply)
        if wrong is not None:
            raise _Wrong(wrong)
        if due.command is Command.ALLOC_BUFFER:
            buffer, size = struct.unpack("<QQ", reply)
            if buffer:
                with self._lock:
                    self._buffers[buffer] = size
                    lent = sum(self._buffers.values())
                if self._lent is not None:
                    self._lent(lent)
            else:
                self.refused = ByteCount(int.from_bytes(due.request[4:], "little"))

    def _fault(self, side: str, what: str) -> None:
        if self._closing:
            return  # the end of the one connection follows from the end of the other
        if side == "node":
            self.node_fault = what
        else:
            self.client_fault = what
        self.close()


def _received(connection: socket.socket, count: int) -> bytes:
    part = connection.recv(count)
    if not part:
        raise EOFError
    return part


def _queued(connection: socket.socket) -> int:
    """Bytes that the system has taken and not yet delivered; 0 where it does not say."""
    with suppress(ImportError, AttributeError, OSError, ValueError):
        import fcntl
        import termios

        count = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(count, "little")
    return 0


def watch_connection(connection: socket.socket) -> None:
    """Let the system end a connection to a machine that is gone, and send small messages at once."""
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", _QUIET),
            ("TCP_KEEPINTVL", _QUIET),
            ("TCP_KEEPCNT", _PROBES),
            ("TCP_USER_TIMEOUT", 1000 * _QUIET * (_PROBES + 1)),
        ):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
