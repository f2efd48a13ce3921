"""A worker that lends this machine to others, in a process of its own that is started again whenever it dies.

Native code of the worker ends its process at a message it does not expect, from a client that is wrong or that was
killed; nobody should have to walk to that machine then.
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

from runtime.base.errors import EngineFailed, NetworkError, UsageError
from runtime.base.events import Listener, Notice, ignore
from runtime.nodes import addresses, client
from runtime.nodes.addresses import Address

_START_SECONDS = 30.0
_TOO_SOON = 2.0  # seconds; a worker that ends sooner did nothing yet
_MOST_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Offer:
    """What is lent. `memory` in bytes; None lends what is free. `cache` is a folder for large tensors, or None."""

    address: Address
    threads: int
    memory: int | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        addresses.check_private(self.address.host)
        if self.threads < 1:
            raise UsageError(f"a worker needs a thread, not {self.threads}")
        if self.memory is not None and self.memory < 1:
            raise UsageError(f"{self.memory} bytes of memory are nothing to lend")


def free_port(host: str) -> int:
    """A port of this machine that nobody uses now. Raises NetworkError where `host` is not of this machine."""
    return _bound(Address(host, 0))


def lend(offer: Offer, listen: Listener = ignore) -> None:
    """Run a worker until interrupted (KeyboardInterrupt). Says by `Notice` when it is ready and when it died.

    Raises NetworkError when the address cannot be used, EngineFailed when the worker dies again and again at its start.
    """
    _bound(offer.address)
    if offer.cache is not None:
        offer.cache.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        started = time.monotonic()
        with _child(offer) as child:
            try:
                ready = _wait_until_ready(child, offer.address)
                if ready:
                    listen(Notice(f"ready at {offer.address}"))
                reason = _last_words(child)
            finally:
                child.kill()
        failures = 0 if ready and time.monotonic() - started > _TOO_SOON else failures + 1
        if failures >= _MOST_FAILURES:
            raise EngineFailed(f"the worker ended {failures} times at its start: {reason}")
        listen(Notice(f"the worker ended ({reason}) and is started again"))


def _bound(address: Address) -> int:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address.host, address.port))
            return int(trial.getsockname()[1])
    except OSError as error:
        elsewhere = error.errno == errno.EADDRNOTAVAIL
        hint = "--host must be an address of this machine" if elsewhere else "choose another --port, or 0 for any"
        raise NetworkError(f"cannot listen at {address}: {error.strerror}", hint=hint) from None


def _child(offer: Offer) -> subprocess.Popen[str]:
    what = {
        "endpoint": str(offer.address),
        "threads": offer.threads,
        "memory": offer.memory,
        "cache": str(offer.cache) if offer.cache is not None else None,
    }
    return subprocess.Popen(
        [sys.executable, "-c", "from runtime.nodes.server import main; main()", json.dumps(what)],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,  # kept open: its end tells the child that its parent is gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches every process of a terminal's session; the parent decides
    )


def _wait_until_ready(child: subprocess.Popen[str], address: Address) -> bool:
    """Whether the worker accepts connections, before it ends or `_START_SECONDS` are over."""
    until = time.monotonic() + _START_SECONDS
    while child.poll() is None and time.monotonic() < until:
        if client.is_reachable(address, 1):
            return True
        time.sleep(0.05)
    return False


def _last_words(child: subprocess.Popen[str]) -> str:
    """Wait for the worker's end; the last line it wrote, or the signal that ended it."""
    assert child.stderr is not None
    last = ""
    for line in child.stderr:
        last = line.strip() or last
    code = child.wait()
    name = signal.Signals(-code).name if code < 0 and -code in set(signal.Signals) else f"exit code {code}"
    return f"{name}: {last}" if last else name


def main() -> None:
    """The child."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    what = json.loads(sys.argv[1])
    try:
        from runtime.llama import serve

        lent = _Memory(what["memory"])
        serve(what["endpoint"], what["threads"], Path(what["cache"]) if what["cache"] else None, lent.told)
    except EngineFailed as error:
        sys.stderr.write(error.message + "\n")
        sys.exit(error.exit_code)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


class _Memory:
    """What of this machine's memory is lent, and that no more is taken: the engine limits neither."""

    def __init__(self, limit: int | None) -> None:
        from runtime.machine.host import probe

        self._probe = probe
        self._limit = limit
        self._own = _taken()
        if limit is not None:
            with suppress(ImportError, OSError, ValueError):  # there is no such limit on Windows
                import resource

                resource.setrlimit(resource.RLIMIT_DATA, (self._own + limit,) * 2)

    def told(self) -> tuple[int, int]:
        """Bytes of memory that are still free, and in all."""
        machine = self._probe()
        if self._limit is None:
            return machine.memory_available, machine.memory_total
        left = max(0, self._limit - (_taken() - self._own))
        return min(left, machine.memory_available), self._limit


def _taken() -> int:
    """Bytes of memory this process asked for, as RLIMIT_DATA counts them; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:")), 0)
