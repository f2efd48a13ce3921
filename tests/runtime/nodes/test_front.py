"""The door of a node, with a real worker behind it and clients that misbehave before it."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.nodes import client
from runtime.nodes import front as front_module
from runtime.nodes.addresses import Address
from runtime.nodes.front import Front
from runtime.nodes.protocol import (
    HELLO_REQUEST,
    REPLY_HEAD,
    REQUEST_HEAD,
    SET_TENSOR_HEAD,
    TENSOR,
    Command,
)
from tests import node_servers

HELLO = REQUEST_HEAD.pack(Command.HELLO, 24) + HELLO_REQUEST


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with node_servers.worker() as (_, behind):
        front = Front(Address("127.0.0.1", 0))
        front.behind = behind
        yield Address("127.0.0.1", front._server.getsockname()[1])
        front.close()


def connected(address: Address) -> socket.socket:
    connection = socket.create_connection((address.host, address.port), 30)
    connection.settimeout(30)
    return connection


def request(command: int, body: bytes = b"", size: int | None = None) -> bytes:
    return REQUEST_HEAD.pack(command, len(body) if size is None else size) + body


def answer(connection: socket.socket) -> bytes:
    [size] = REPLY_HEAD.unpack(node_servers.exactly(connection, 8))
    return node_servers.exactly(connection, size)


def is_ended(connection: socket.socket) -> bool:
    """Whether the front ends the connection, which it may also reset because something was not read."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return True


def test_a_client_asks_through_the_front(address: Address) -> None:
    node = client.ask(address, bandwidth=True)
    assert node.version == (7, 0, 0)
    assert node.bandwidth > 0


@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO[:20], HELLO])
def test_clients_that_say_nothing_more_block_nobody(address: Address, said: bytes) -> None:
    idle = [connected(address) for _ in range(100)]
    try:
        for each in idle:
            each.sendall(said)
        assert client.ask(address).devices
    finally:
        for each in idle:
            each.close()


def test_more_connections_than_may_wait_end_the_oldest_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[socket.socket] = []
    monkeypatch.setattr(Front, "_serve", lambda _, each: accepted.append(each))  # as threads that hear late of the end
    front = Front(Address("127.0.0.1", 0))
    address = Address("127.0.0.1", front._server.getsockname()[1])
    clients = [connected(address) for _ in range(front_module._MOST_WAITING + 6)]
    assert all(is_ended(each) for each in clients[:6])
    clients[6].setblocking(False)
    with pytest.raises(BlockingIOError):
        clients[6].recv(1)
    while len(accepted) < len(clients):
        time.sleep(0.01)
    front.close()
    for each in (*clients, *accepted):
        each.close()


def test_a_client_without_a_buffer_that_falls_silent_loses_its_turn(address: Address) -> None:
    with connected(address) as first:
        first.sendall(HELLO + request(Command.DEVICE_COUNT))
        assert answer(first)[:3] == b"\x07\x00\x00"
        assert answer(first) == struct.pack("<I", 1)
        assert client.ask(address).devices
        assert is_ended(first)


def test_a_client_with_a_buffer_may_think_and_its_end_frees_the_node(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_module, "_IDLE_SECONDS", 0.05)
    with connected(address) as first:
        first.sendall(HELLO + request(Command.ALLOC_BUFFER, struct.pack("<IQ", 0, 4096)))
        assert answer(first)
        assert answer(first) > bytes(16)
        with connected(address) as second:
            second.sendall(HELLO + request(Command.DEVICE_COUNT))
            assert answer(second)
            # The second waits for longer than a client without a buffer may be silent.
            second.settimeout(0.5)
            with pytest.raises(TimeoutError):
                second.recv(1)
            first.sendall(request(Command.DEVICE_COUNT))
            assert answer(first) == struct.pack("<I", 1)
            first.close()
            second.settimeout(30)
            assert answer(second) == struct.pack("<I", 1)


@pytest.mark.parametrize(
    "hostile",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        request(Command.DEVICE_COUNT),
        request(Command.HELLO, size=1 << 63),
        HELLO + HELLO,
        HELLO + request(200),
        HELLO + request(Command.GRAPH_RECOMPUTE, bytes(4)),
        HELLO + request(Command.ALLOC_BUFFER, size=1 << 62),
        HELLO + request(Command.SET_TENSOR, size=1 << 40),
        HELLO + request(Command.GRAPH_COMPUTE, size=1 << 40),
        HELLO + request(Command.GRAPH_COMPUTE, struct.pack("<III", 0, 0xFFFFFFFF, 0xFFFFFFFF)),
        HELLO + request(Command.GET_TENSOR, bytes(TENSOR.size + 8) + struct.pack("<Q", 1 << 62)),
        HELLO + request(Command.DEVICE_COUNT) * 64,
    ],
)
def test_what_no_client_says_ends_its_connection_and_nothing_else(address: Address, hostile: bytes) -> None:
    with connected(address) as connection:
        connection.sendall(hostile)
        with suppress(OSError):  # it may be ended already
            connection.shutdown(socket.SHUT_WR)
        assert is_ended(connection)
    assert client.ask(address).devices


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_leave_the_node_in_service(address: Address, said: bytes, greets: bool) -> None:
    with connected(address) as connection:
        connection.sendall((HELLO if greets else b"") + said)
        with suppress(OSError):  # it may be ended already
            connection.shutdown(socket.SHUT_WR)
        assert is_ended(connection)
    assert client.ask(address).devices


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_connections_leave_no_open_file_behind(address: Address) -> None:
    for _ in range(2):
        client.ask(address)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        with connected(address) as connection:
            connection.sendall(HELLO[:20])
    for _ in range(100):
        with connected(address) as connection:
            connection.sendall(HELLO + request(Command.DEVICE_COUNT))
            answer(connection)
            answer(connection)
            connection.shutdown(socket.SHUT_WR)
            assert is_ended(connection)
    assert client.ask(address).devices
    assert len(os.listdir("/proc/self/fd")) <= before + 8  # some threads are about to end


def tensor_of(elements: int) -> bytes:
    return TENSOR.pack(1, 0, 0, elements, 1, 1, 1, *[4] * 4, 0, *[0] * 16, 0, *[0] * 10, 0, 0, 0, b"", 0)


def test_a_cached_tensor_that_is_not_whole_is_removed_before_the_server_reads_it(tmp_path: Path) -> None:
    front = Front(Address("127.0.0.1", 0), tmp_path)
    try:
        whole, part = tmp_path / f"{7:016x}", tmp_path / f"{8:016x}"
        whole.write_bytes(bytes(40))
        part.write_bytes(bytes(39))
        for number in (7, 8, 9):
            body = tensor_of(10) + struct.pack("<QQ", 0, number)
            assert front._before(Command.SET_TENSOR_HASH, body, len(body)) == body
        assert [each.name for each in tmp_path.iterdir()] == [whole.name]
    finally:
        front.close()


def test_a_tensor_for_which_the_disk_has_no_room_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = Front(Address("127.0.0.1", 0), tmp_path)
    try:
        head = tensor_of(10) + b"\x01" + struct.pack("<Q", 0)
        assert len(head) == SET_TENSOR_HEAD
        monkeypatch.setattr(front_module, "_KEPT_FREE", 0)
        assert front._before(Command.SET_TENSOR, head, len(head)) == head
        monkeypatch.setattr(front_module, "_KEPT_FREE", 1 << 62)
        assert front._before(Command.SET_TENSOR, head, len(head))[TENSOR.size] == 0
    finally:
        front.close()
