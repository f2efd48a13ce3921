"""The messages of one connection, between two pairs of sockets."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runtime.nodes.protocol import REPLY_HEAD, REQUEST_HEAD, Command
from runtime.nodes.wire import Wire
from tests.node_servers import exactly

ALIGNMENT = REQUEST_HEAD.pack(Command.GET_ALIGNMENT, 4) + bytes(4)


@contextmanager
def wired(seconds_per_byte: float = 0.0) -> Iterator[tuple[Wire, socket.socket, socket.socket]]:
    """A running wire, and the sockets of its client and its node."""
    client, inner = socket.socketpair()
    outer, node = socket.socketpair()
    wire = Wire(inner, outer, seconds_per_byte=seconds_per_byte)
    thread = threading.Thread(target=wire.run)
    thread.start()
    for each in (client, node):
        each.settimeout(30)
    try:
        yield wire, client, node
    finally:
        wire.close()
        thread.join()
        client.close()
        node.close()


def test_a_node_that_owes_nothing_is_not_silent() -> None:
    with wired() as (wire, client, node):
        assert wire.silence() == 0
        client.sendall(ALIGNMENT)
        assert exactly(node, len(ALIGNMENT)) == ALIGNMENT
        assert wire.silence() > 0
        node.sendall(REPLY_HEAD.pack(8) + struct.pack("<Q", 64))
        assert exactly(client, 16) == REPLY_HEAD.pack(8) + struct.pack("<Q", 64)
        while wire.silence():  # until the thread that sent the request has noticed that it is done
            time.sleep(0.001)
        assert wire.node_fault is None and wire.client_fault is None


def test_what_may_still_be_on_a_slow_way_is_no_silence() -> None:
    with wired(seconds_per_byte=60.0) as (wire, client, node):
        client.sendall(ALIGNMENT)
        exactly(node, len(ALIGNMENT))
        assert wire.silence() == 0


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (REPLY_HEAD.pack(9), "answers GET_ALIGNMENT with 9 bytes where 8 were expected"),
        (REPLY_HEAD.pack(1 << 63), "answers GET_ALIGNMENT with 9223372036854775808 bytes where 8 were expected"),
        (REPLY_HEAD.pack(8) + struct.pack("<Q", 48), "answers with an alignment of 48 bytes"),
        (REPLY_HEAD.pack(8) + bytes(3), "closed the connection"),
        (b"", "closed the connection"),
    ],
)
def test_what_a_node_does_wrong_is_told_and_ends_the_connection(said: bytes, fault: str) -> None:
    with wired() as (wire, client, node):
        client.sendall(ALIGNMENT)
        exactly(node, len(ALIGNMENT))
        node.sendall(said)
        node.shutdown(socket.SHUT_WR)
        assert client.recv(64) == b""
        assert wire.node_fault == fault


def test_the_end_of_the_client_is_nobodys_fault() -> None:
    with wired() as (wire, client, node):
        client.shutdown(socket.SHUT_WR)
        assert node.recv(1) == b""
        assert wire.node_fault is None and wire.client_fault is None
