"""A `LlamaBackend` in a process of its own, which may die or hang without harm to the parent.

The parent sends (method, arguments), the child answers ("done", value), ("failed", error), or first ("event", event).
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.base.errors import Aborted, DsrError
from runtime.base.events import Listener
from runtime.base.run import Run, Stop
from runtime.base.types import SamplingParams, TokenStatistics
from runtime.engine.backend import Batch

if TYPE_CHECKING:
    from runtime.llama import LlamaBackend, OpenOptions

_LOOK = 0.05  # seconds between two checks of `Stop`
# A connection without traffic is probed after `_QUIET` seconds and fails after `_PROBES` probes without an answer: this
# is how a node whose machine went away without a word is noticed.
_QUIET = 5
_PROBES = 3


class ChildLost(Exception):
    """The child died or did not answer in time; the message is its last line or says that it was silent."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The properties of an open backend, and the seconds that one token took."""

    slots: int
    context: int
    batch_size: int
    most_outputs: int
    vocab_size: int
    seconds_per_token: float


class EngineProcess:
    """The parent's side. Every call raises what the backend raised, or ChildLost."""

    def __init__(self, path: Path, options: OpenOptions, run: Run, max_silence: float) -> None:
        """Load the model in a child, which counts as lost after `max_silence` seconds without any progress."""
        self._stop = run.stop
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        self._child = subprocess.Popen(
            [sys.executable, "-c", "from runtime.nodes.engine_process import main; main()", str(number)],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("DSR_DEBUG") == "1" else self._said,
            pass_fds=[number],
            start_new_session=True,  # Ctrl-C reaches every process of a terminal's session; the parent decides
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        try:
            self.facts: Facts = self.call("open", path.absolute(), options, max_silence=max_silence, listen=run.listen)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any, max_silence: float, listen: Listener | None = None) -> Any:
        try:
            self._pipe.send((method, arguments))
            return self._answer(max_silence, listen)
        except (EOFError, OSError):
            raise ChildLost(self._last_words()) from None

    def _answer(self, max_silence: float, listen: Listener | None) -> Any:
        told_to_stop = False
        until = time.monotonic() + max_silence
        while True:
            if self._stop.wanted and not told_to_stop:
                self._pipe.send(("stop", ()))
                told_to_stop = True
            if self._pipe.poll(_LOOK):
                kind, value = self._pipe.recv()
                if kind == "event" and listen is not None:
                    listen(value)
                    until = time.monotonic() + max_silence
                elif kind == "done":
                    return value
                elif kind == "failed":
                    if isinstance(value, Aborted):
                        self._stop.take()
                    raise value
            elif time.monotonic() > until:
                raise ChildLost(f"silent for {max_silence:.0f} s")

    def _last_words(self) -> str:
        code = self._child.wait()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        if code == -signal.SIGKILL:
            return "killed by the system, which is what happens when memory runs out"
        return lines[-1] if lines else f"ended with code {code}"

    def close(self) -> None:
        # The child has nothing to save.
        self._child.kill()
        self._child.wait()
        self._pipe.close()
        self._said.close()


def main() -> None:
    """The child."""
    pipe = Connection(int(sys.argv[1]))
    stop = Stop()
    wanted: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, stop, wanted), daemon=True).start()
    served = _Served(pipe, stop)
    while True:
        method, arguments = wanted.get()
        try:
            answer = ("done", getattr(served, method)(*arguments))
        except DsrError as error:
            answer = ("failed", error)
        pipe.send(answer)


def _read(pipe: Connection, stop: Stop, wanted: queue.SimpleQueue[tuple[str, tuple[Any, ...]]]) -> None:
    while True:
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)  # the parent is gone
        if method == "stop":
            stop.set()
        else:
            stop.take()  # a stop that came too late for the call before
            wanted.put((method, arguments))


class _Served:
    """The calls that a parent may make."""

    def __init__(self, pipe: Connection, stop: Stop) -> None:
        self._pipe = pipe
        self._stop = stop
        self._samplers: dict[int, Any] = {}

    def open(self, path: Path, options: OpenOptions) -> Facts:
        from runtime.llama import LlamaBackend

        self._backend: LlamaBackend = LlamaBackend(
            path, options, Run(self._stop, lambda event: self._pipe.send(("event", event)))
        )
        _watch_connections()
        backend = self._backend
        return Facts(
            backend.slots,
            backend.context,
            backend.batch_size,
            backend.most_outputs,
            backend.vocab_size,
            self._seconds_per_token(),
        )

    def _seconds_per_token(self) -> float:
        batch = Batch()
        batch.add([0], 0, 0, output=True)
        started = time.perf_counter()
        self._backend.decode(batch)
        self._backend.statistics(0, 0)  # the engine computes on until somebody wants its logits
        seconds = time.perf_counter() - started
        self._backend.trim(0, 0)
        return seconds

    def ready(self) -> None:
        """Does nothing: an answer means that the model is open."""

    def decode(self, batch: Batch) -> None:
        self._backend.decode(batch)

    def draw(self, number: int, params: SamplingParams, seed: int, row: int, finished: tuple[int, ...]) -> int:
        for each in finished:
            self._samplers.pop(each, None)
        if number not in self._samplers:
            self._samplers[number] = self._backend.sampler(params, seed)
        return int(self._samplers[number](row))

    def statistics(self, row: int, token: int) -> TokenStatistics:
        return self._backend.statistics(row, token)

    def fork(self, source: int, target: int) -> None:
        self._backend.fork(source, target)

    def trim(self, slot: int, length: int) -> bool:
        return self._backend.trim(slot, length)

    def tokenize(self, text: str, add_special: bool) -> list[int]:
        return list(self._backend.tokenize(text, add_special=add_special))

    def piece(self, token: int) -> tuple[bytes, bool]:
        return self._backend.piece(token), self._backend.ends(token)

    def set_threads(self, threads: int, batch_threads: int) -> None:
        self._backend.set_threads(threads, batch_threads)


def _watch_connections() -> None:
    """Let the system detect a node whose machine is gone: the engine reads connections without a time limit."""
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        numbers = [int(each.name) for each in folder.iterdir()] if folder.exists() else []
        for number in numbers:
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                if connection.family != socket.AF_INET or connection.type != socket.SOCK_STREAM:
                    continue
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in (
                    ("TCP_KEEPIDLE", _QUIET),
                    ("TCP_KEEPINTVL", _QUIET),
                    ("TCP_KEEPCNT", _PROBES),
                    ("TCP_USER_TIMEOUT", 1000 * _QUIET * (_PROBES + 1)),
                ):
                    if hasattr(socket, name):
                        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if numbers:
            return
