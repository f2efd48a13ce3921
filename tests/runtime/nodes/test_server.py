from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.base.errors import NetworkError, UsageError
from runtime.nodes import client
from runtime.nodes.addresses import Address
from runtime.nodes.server import ServerOptions, free_port, run_server

ROOT = Path(__file__).resolve().parents[3]
LEND = """
import sys
from runtime.nodes.server import ServerOptions, run_server
from runtime.nodes.addresses import Address
options = ServerOptions(Address("127.0.0.1", int(sys.argv[1])), 1, int(sys.argv[2]) or None)
run_server(options, lambda event: print(event.text, flush=True))
"""


@contextmanager
def lender(memory: int = 0) -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """`lend` in a process of its own, ready."""
    address = Address("127.0.0.1", free_port("127.0.0.1"))
    command = [sys.executable, "-c", LEND, str(address.port), str(memory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"ready at {address}\n"
            yield process, address
        finally:
            process.kill()


def worker_of(process: subprocess.Popen[str]) -> int:
    [pid] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(pid)


linux = pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")


@linux
def test_a_worker_that_dies_is_started_again_and_that_is_said() -> None:
    with lender() as (process, address):
        assert process.stdout is not None
        first = worker_of(process)
        os.kill(first, signal.SIGKILL)
        assert process.stdout.readline() == "the server ended (SIGKILL) and is restarted\n"
        assert process.stdout.readline() == f"ready at {address}\n"
        assert worker_of(process) != first
        assert client.ask(address).devices


@linux
def test_the_worker_ends_with_its_parent() -> None:
    with lender() as (process, address):
        worker = os.pidfd_open(worker_of(process))
        process.kill()
        process.wait()
        ended, _, _ = select.select([worker], [], [], 60)  # readable when every thread of the worker is gone
        os.close(worker)
        assert ended
    assert not client.is_reachable(address)


def test_no_more_memory_is_lent_than_was_said() -> None:
    limit = 48 << 20
    with lender(limit) as (_, address):
        [device] = client.ask(address).devices
        assert device.memory_total == limit
        assert limit - (16 << 20) < device.memory_free <= limit
        with client._connected(address, 10) as connection:
            connection.greet()
            taken = [connection._fill(16 << 20)]
            with pytest.raises(NetworkError, match=r"no 64\.0 MiB of memory left"):
                connection._fill(64 << 20)
        assert taken


def test_what_is_free_is_told_where_nothing_was_said() -> None:
    from runtime.machine.host import probe

    host = probe()
    with lender() as (_, address):
        [device] = client.ask(address).devices
    assert device.memory_total == host.memory_total
    assert 0 < device.memory_free <= host.memory_total


@pytest.mark.parametrize("host", ["8.8.8.8", "0.0.0.0"])
def test_only_private_networks_are_lent_to(host: str) -> None:
    with pytest.raises(UsageError):
        ServerOptions(Address(host, 50052), 1)


def test_nothing_cannot_be_lent() -> None:
    with pytest.raises(UsageError, match="0 bytes"):
        ServerOptions(Address("127.0.0.1", 50052), 1, 0)
    with pytest.raises(UsageError, match="between 1 and 512 threads, not 0"):
        ServerOptions(Address("127.0.0.1", 50052), 0)


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(NetworkError, match=f"cannot listen at {address}"):
            run_server(ServerOptions(address, 1))


def test_an_address_of_another_machine_is_an_error_at_once() -> None:
    with pytest.raises(NetworkError, match=r"cannot listen at 10\.255\.255\.254"):
        free_port("10.255.255.254")
