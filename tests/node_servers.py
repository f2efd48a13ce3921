"""Node servers for tests: real workers in their own processes, fake ones, and a slow relay to them."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.nodes import client
from runtime.nodes.addresses import Address
from runtime.nodes.protocol import REPLY_HEAD, REPLY_SIZES, REQUEST_HEAD, Command
from runtime.nodes.server import free_port

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def worker(command: list[str] | None = None) -> Iterator[tuple[subprocess.Popen[bytes], Address]]:
    """A worker on loopback: this engine's, or the one that `command` starts with {host} and {port} filled in."""
    address = Address("127.0.0.1", free_port("127.0.0.1"))
    own = [sys.executable, "-c", f"from runtime.llama import serve; serve('{address}', 1)"]
    run = own if command is None else [each.format(host=address.host, port=address.port) for each in command]
    with subprocess.Popen(run, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while not client.is_reachable(address):
                assert process.poll() is None and time.monotonic() < until, "the worker did not start"
                time.sleep(0.02)
            yield process, address
        finally:
            process.kill()


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[Address]:
    """Listen on a free port and call `serve` with each connection, in its own thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, serve), daemon=True).start()
        yield Address("127.0.0.1", server.getsockname()[1])


def _accept(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(connection, serve), daemon=True).start()


def _serve(connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with connection, suppress(OSError):
        serve(connection)


def silent(connection: socket.socket) -> None:
    """Read everything and never answer, like a stopped worker."""
    while connection.recv(4096):
        pass


def speaking(*version: int) -> Callable[[socket.socket], None]:
    """Answer with this version of the protocol, then stay silent."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(struct.pack("<Q4B24x", 28, *version, 0))
        silent(connection)

    return serve


@contextmanager
def relay(to: Address, *, delay: float = 0.0, bytes_per_second: float = 0.0) -> Iterator[Address]:
    """A relay to `to` that delays each piece of data by `delay` seconds and limits the speed."""

    def serve(connection: socket.socket) -> None:
        with socket.create_connection((to.host, to.port)) as onward:
            for each in (connection, onward):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=pump, args=(onward, connection), daemon=True)
            back.start()
            pump(connection, onward)
            back.join()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(delay + (len(data) / bytes_per_second if bytes_per_second else 0))
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    with listener(serve) as address:
        yield address


Misdeed = Callable[[socket.socket, bytes], None]


def closes(connection: socket.socket, reply: bytes) -> None:
    """Closes the connection instead of the answer."""
    raise OSError


def closes_in_the_middle(connection: socket.socket, reply: bytes) -> None:
    connection.sendall((REPLY_HEAD.pack(len(reply)) + reply)[: 8 + len(reply) // 2])
    raise OSError


def garbles(connection: socket.socket, reply: bytes) -> None:
    connection.sendall(bytes(range(1, 256)) * 64)


def shortens(connection: socket.socket, reply: bytes) -> None:
    connection.sendall(REPLY_HEAD.pack(len(reply) - 1) + reply[:-1])


def announces_too_much(connection: socket.socket, reply: bytes) -> None:
    connection.sendall(REPLY_HEAD.pack(1 << 63))


def answers_twice(connection: socket.socket, reply: bytes) -> None:
    connection.sendall(2 * (REPLY_HEAD.pack(len(reply)) + reply))


def says_ones(connection: socket.socket, reply: bytes) -> None:
    connection.sendall(REPLY_HEAD.pack(len(reply)) + b"\xff" * len(reply))


def says_zeros(connection: socket.socket, reply: bytes) -> None:
    connection.sendall(REPLY_HEAD.pack(len(reply)) + bytes(len(reply)))


def falls_silent(connection: socket.socket, reply: bytes) -> None:
    while connection.recv(4096):
        pass


def drips(connection: socket.socket, reply: bytes) -> None:
    """Sends one byte after the other, so that there is always some progress."""
    for byte in REPLY_HEAD.pack(len(reply)) + reply:
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


@contextmanager
def faulty(to: Address, command: Command, does: Misdeed, nth: int = 1) -> Iterator[Address]:
    """The worker at `to`, which at the engine's `nth` such request does something else than to answer.

    It greets, and works for everybody who only asks about its devices.
    """
    seen = 0

    def serve(connection: socket.socket) -> None:
        nonlocal seen
        counted = 0
        with socket.create_connection((to.host, to.port)) as onward:
            for each in (connection, onward):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                head = exactly(connection, REQUEST_HEAD.size)
                number, size = REQUEST_HEAD.unpack(head)
                body = exactly(connection, size)
                counted += number == Command.DEVICE_COUNT  # `client.ask` counts several times, the engine once
                asked = number == command and counted < 2
                seen += asked
                wrong = asked and seen >= nth
                has_reply = number in REPLY_SIZES or number == Command.GET_TENSOR
                if wrong and not has_reply:
                    does(connection, b"")
                onward.sendall(head + body)
                if has_reply:
                    [length] = REPLY_HEAD.unpack(exactly(onward, 8))
                    reply = exactly(onward, length)
                    if wrong:
                        does(connection, reply)
                    else:
                        connection.sendall(REPLY_HEAD.pack(length) + reply)

    with listener(serve) as address:
        yield address


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise OSError
        data += part
    return data
