"""The door of a node: takes connections, and lets one client at a time through to the RPC server behind it.

That server serves one connection after the other and waits for ever, so a client that says nothing would block all
others. It also reads whatever length a request announces.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from runtime.base.events import Listener, Notice, ignore
from runtime.base.types import ByteCount
from runtime.gguf.types import BY_NUMBER
from runtime.nodes.addresses import Address
from runtime.nodes.protocol import (
    HELLO_REPLY,
    HELLO_REQUEST,
    PROTOCOL,
    REPLY_HEAD,
    REQUEST_HEAD,
    TENSOR,
    Command,
)
from runtime.nodes.wire import Wire, watch_connection

_GREETING_SECONDS = 10.0  # for the greeting and the first request
_IDLE_SECONDS = 2.0  # without a buffer on this node; the engine asks its few questions one after the other
_MOST_WAITING = 64  # connections; one more ends the oldest
_KEPT_FREE = 1 << 30  # bytes of the disk that the cache leaves


class Front:
    """Listens at `address` until `close`. Clients reach the server at `behind`, while there is one."""

    def __init__(self, address: Address, cache: Path | None = None, listen: Listener = ignore) -> None:
        """`cache` is the server's folder of large tensors. `listen` hears who uses how much memory, in other threads.

        Raises OSError if the address cannot be used.
        """
        self._listen = listen
        self.behind: Address | None = None
        self._cache = cache
        self._turn = threading.Lock()
        self._waiting: dict[socket.socket, None] = {}
        self._changes = threading.Lock()
        self._server = socket.create_server((address.host, address.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # ends the accept of the other thread
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except ConnectionError:
                continue
            except OSError:
                if self._server.fileno() < 0:
                    return
                time.sleep(0.1)  # too many files are open; some connection will end
                continue
            with self._changes:
                if len(self._waiting) >= _MOST_WAITING:
                    oldest = next(iter(self._waiting))
                    del self._waiting[oldest]  # at once: many may come before its thread hears of the end
                    with suppress(OSError):
                        oldest.shutdown(socket.SHUT_RDWR)
                self._waiting[client] = None
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            watch_connection(client)
            greeted = self._greet(client)
            if greeted:
                self._turn.acquire()
            with self._changes:
                self._waiting.pop(client, None)
            if greeted:
                try:
                    self._connect(client)
                finally:
                    self._turn.release()

    def _greet(self, client: socket.socket) -> bool:
        """Answer the greeting, and wait for a first request. Only then the client takes its turn."""
        until = time.monotonic() + _GREETING_SECONDS
        data = b""
        try:
            while len(data) < REQUEST_HEAD.size + len(HELLO_REQUEST):
                client.settimeout(max(until - time.monotonic(), 0.01))
                part = client.recv(REQUEST_HEAD.size + len(HELLO_REQUEST) - len(data))
                data += part
                if not part or REQUEST_HEAD.pack(Command.HELLO, len(HELLO_REQUEST))[: len(data)] != data[:9]:
                    return False
            client.sendall(REPLY_HEAD.pack(HELLO_REPLY.size) + HELLO_REPLY.pack(*PROTOCOL, 0, bytes(24)))
            client.settimeout(max(until - time.monotonic(), 0.01))
            return bool(client.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _connect(self, client: socket.socket) -> None:
        if self.behind is None:
            return  # the server is just restarted
        with socket.create_connection((self.behind.host, self.behind.port), _GREETING_SECONDS) as node:
            node.sendall(REQUEST_HEAD.pack(Command.HELLO, len(HELLO_REQUEST)) + HELLO_REQUEST)
            reply = b""
            while len(reply) < REPLY_HEAD.size + HELLO_REPLY.size and (part := node.recv(REPLY_HEAD.size)):
                reply += part
            node.settimeout(None)
            began, host, used = time.monotonic(), client.getpeername()[0], 0

            def lent(size: int) -> None:
                nonlocal used
                if str(ByteCount(size)) == str(ByteCount(used)):
                    return
                came = "" if used else "came and "
                used = size
                self._listen(Notice(f"{host} {came}uses {ByteCount(size)} of memory"))

            before = self._before if self._cache else None
            Wire(client, node, idle=_IDLE_SECONDS, before=before, lent=lent).run()
            if used:  # others only ask who is here
                self._listen(Notice(f"{host} left after {time.monotonic() - began:.0f} s; no memory is lent"))

    def _before(self, command: Command, body: bytes, size: int) -> bytes:
        """Keep the server from using, or making, a file of its cache that is not whole."""
        assert self._cache is not None
        if command is Command.SET_TENSOR_HASH:
            file = self._cache / f"{int.from_bytes(body[-8:], 'little'):016x}"
            with suppress(OSError):
                if file.stat().st_size != _tensor_bytes(body[: TENSOR.size]):
                    file.unlink()  # the server was killed, or the disk was full, while it wrote it
        elif command is Command.SET_TENSOR and body[TENSOR.size]:
            with suppress(OSError):
                if shutil.disk_usage(self._cache).free < size + _KEPT_FREE:
                    return body[: TENSOR.size] + b"\0" + body[TENSOR.size + 1 :]
        return body


def _tensor_bytes(tensor: bytes) -> int:
    _, number, _, *rest = TENSOR.unpack(tensor)
    kind = BY_NUMBER.get(number)
    if kind is None:
        return -1
    elements = int(rest[0] * rest[1] * rest[2] * rest[3])
    return elements // kind.block * kind.width
