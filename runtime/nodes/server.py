"""Runs llama.cpp's RPC server in a child process, behind the node's front, and restarts it whenever it ends.

The engine ends the process at an unexpected message, for example from a client that was killed.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.base.disk_errors import disk_errors
from runtime.base.errors import EngineFailed, NetworkError, UsageError
from runtime.base.events import Listener, Notice, ignore
from runtime.base.files import check_writable
from runtime.base.process_memory import data_memory
from runtime.base.run import MOST_THREADS
from runtime.nodes import addresses, client
from runtime.nodes.addresses import Address
from runtime.nodes.front import Front

_START_SECONDS = 30.0
_TOO_SOON = 2.0  # seconds; a server that ends sooner has failed at its start
_MOST_FAILURES = 3


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve this machine. `memory` limits the bytes of RAM; None offers all that is free.

    `cache` is a folder for large tensors, or None.
    """

    address: Address
    threads: int
    memory: int | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        addresses.check_private(self.address.host)
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"a node uses between 1 and {MOST_THREADS} threads, not {self.threads}")
        if self.memory is not None and self.memory < 1:
            raise UsageError(f"a node cannot offer {self.memory} bytes of memory")


def free_port(host: str) -> int:
    """A port that is free now. Raises NetworkError if `host` is not an address of this machine."""
    return _bound(Address(host, 0))


def run_server(options: ServerOptions, listen: Listener = ignore) -> None:
    """Serve until interrupted (KeyboardInterrupt). A `Notice` reports that the server is ready or was restarted, who
    came, what memory is lent, and who left.

    Raises NetworkError if the address cannot be used, DsrError if the cache cannot be written, EngineFailed if the
    server ends three times at its start.
    """
    if options.cache is not None:
        with disk_errors(options.cache, "free some space, or leave out --cache"):
            check_writable(options.cache / "0")
    try:
        front = Front(options.address, options.cache, listen)
    except OSError as error:
        raise _cannot_listen(options.address, error) from None
    try:
        _keep_running(options, front, listen)
    finally:
        front.close()


def _keep_running(options: ServerOptions, front: Front, listen: Listener) -> None:
    failures = 0
    while True:
        started = time.monotonic()
        behind = Address("127.0.0.1", free_port("127.0.0.1"))
        with _child(options, behind) as child:
            try:
                ready = _wait_until_ready(child, behind)
                if ready:
                    front.behind = behind
                    listen(Notice(f"ready at {options.address}"))
                reason = _exit_reason(child)
            finally:
                front.behind = None
                child.kill()
        failures = 0 if ready and time.monotonic() - started > _TOO_SOON else failures + 1
        if failures >= _MOST_FAILURES:
            raise EngineFailed(f"the server ended {failures} times at its start: {reason}")
        listen(Notice(f"the server ended ({reason}) and is restarted"))


def _bound(address: Address) -> int:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address.host, address.port))
            return int(trial.getsockname()[1])
    except OSError as error:
        raise _cannot_listen(address, error) from None


def _cannot_listen(address: Address, error: OSError) -> NetworkError:
    elsewhere = error.errno == errno.EADDRNOTAVAIL
    hint = "--host must be an address of this machine" if elsewhere else "choose another --port, or 0 for any"
    return NetworkError(f"cannot listen at {address}: {os.strerror(error.errno or 0)}", hint=hint)


def _child(options: ServerOptions, behind: Address) -> subprocess.Popen[str]:
    values = {
        "endpoint": str(behind),
        "threads": options.threads,
        "memory": options.memory,
        "cache": str(options.cache) if options.cache is not None else None,
    }
    return subprocess.Popen(
        [sys.executable, "-c", "from runtime.nodes.server import main; main()", json.dumps(values)],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,  # kept open: its end tells the child that its parent is gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches every process of a terminal's session; the parent decides
    )


def _wait_until_ready(child: subprocess.Popen[str], address: Address) -> bool:
    """Whether the server accepts connections before it ends and within `_START_SECONDS`."""
    until = time.monotonic() + _START_SECONDS
    while child.poll() is None and time.monotonic() < until:
        if client.is_reachable(address, 1):
            return True
        time.sleep(0.05)
    return False


def _exit_reason(child: subprocess.Popen[str]) -> str:
    """Waits until the server ends; returns the signal or exit code with the last line it wrote."""
    assert child.stderr is not None
    last = ""
    for line in child.stderr:
        last = line.strip() or last
    code = child.wait()
    name = signal.Signals(-code).name if code < 0 and -code in set(signal.Signals) else f"exit code {code}"
    return f"{name}: {last}" if last else name


def main() -> None:
    """The child process: serves until it fails or its parent ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    values = json.loads(sys.argv[1])
    try:
        from runtime.llama import serve

        memory = _Memory(values["memory"])
        serve(values["endpoint"], values["threads"], Path(values["cache"]) if values["cache"] else None, memory.report)
    except EngineFailed as error:
        sys.stderr.write(error.message + "\n")
        sys.exit(error.exit_code)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


class _Memory:
    """The memory that the server offers. The process may not allocate more; the engine itself has no limit."""

    def __init__(self, limit: int | None) -> None:
        from runtime.machine.host import probe

        self._probe = probe
        self._limit = limit
        self._own = data_memory()
        if limit is not None:
            with suppress(ImportError, OSError, ValueError):  # Windows has no such limit
                import resource

                resource.setrlimit(resource.RLIMIT_DATA, (self._own + limit,) * 2)

    def report(self) -> tuple[int, int]:
        """Free and total bytes that the server reports."""
        host = self._probe()
        if self._limit is None:
            return host.memory_available, host.memory_total
        left = max(0, self._limit - (data_memory() - self._own))
        return min(left, host.memory_available), self._limit
