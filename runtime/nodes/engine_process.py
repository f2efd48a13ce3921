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
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.base.errors import Aborted, DsrError
from runtime.base.events import Listener
from runtime.base.quoted import quoted
from runtime.base.run import Run, Stop
from runtime.base.types import Logprobs, SamplingParams, TokenStatistics
from runtime.engine.backend import Batch, Checkpoint, Constraint, Draw
from runtime.nodes.addresses import Address
from runtime.nodes.relay import Relay
from runtime.nodes.remote_parts import Constrained, Text

if TYPE_CHECKING:
    from runtime.llama import LlamaBackend, OpenOptions

_LOOK = 0.05  # seconds between two checks of `Stop`


class ChildLost(Exception):
    """The child died or did not answer in time; the message is its last line or says that it was silent.

    `node` is the one at fault, where one is known; the message then says what it did.
    """

    def __init__(self, message: str, node: Address | None = None) -> None:
        super().__init__(message)
        self.node = node


@dataclass(frozen=True, slots=True)
class Facts:
    """The properties of an open backend, and the seconds that one token took."""

    slots: int
    sequences: int
    cuts_anywhere: bool
    context: int
    longest: int
    batch_size: int
    most_outputs: int
    vocab_size: int
    seconds_per_token: float


class EngineProcess:
    """The parent's side. Every call raises what the backend raised, or ChildLost."""

    def __init__(
        self,
        path: Path,
        options: OpenOptions,
        run: Run,
        max_silence: float,
        *,
        relays: Sequence[Relay] = (),
        node_silence: float | None = None,
    ) -> None:
        """Load the model in a child. It is lost after `max_silence` seconds without progress and without traffic.

        `relays` lead to the nodes of `options`. A node may owe an answer for `node_silence` seconds.
        """
        self._stop = run.stop
        self._relays = relays
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
            self.facts: Facts = self.call(
                "open",
                path.absolute(),
                options,
                max_silence=max_silence,
                node_silence=node_silence,
                listen=run.listen,
            )
        except BaseException:
            self.close()
            raise

    def call(
        self,
        method: str,
        *arguments: Any,
        max_silence: float,
        node_silence: float | None = None,
        listen: Listener | None = None,
    ) -> Any:
        """The answer of the child. `node_silence` is `max_silence` if it is not given."""
        try:
            self._pipe.send((method, arguments))
            return self._answer(max_silence, max_silence if node_silence is None else node_silence, listen)
        except (EOFError, OSError):
            self._check_nodes()
            raise ChildLost(self._last_words()) from None

    def _answer(self, max_silence: float, node_silence: float, listen: Listener | None) -> Any:
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
                continue
            self._check_nodes()
            silences = {relay.node: relay.silence() for relay in self._relays}
            node, longest = max(silences.items(), key=lambda each: each[1], default=(None, 0.0))
            if longest > node_silence:
                raise ChildLost(f"did not answer for {longest:.0f} s", node)
            if longest:
                until = time.monotonic() + max_silence  # the child waits for a node
            elif time.monotonic() > until:
                raise ChildLost(f"silent for {max_silence:.0f} s")

    def _check_nodes(self) -> None:
        for relay in self._relays:
            if relay.fault is not None:
                raise ChildLost(relay.fault, relay.node)

    def _last_words(self) -> str:
        code = self._child.wait()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        if code == -signal.SIGKILL:
            return "killed by the system, probably because memory ran out"
        return quoted(lines[-1]) if lines else f"ended with code {code}"

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


class _Sampler:
    """A sampler of the child, made when the text had `length` tokens. It collects the tokens that are added."""

    def __init__(self, draw: Draw, length: int) -> None:
        self._draw, self._length = draw, length
        self._added: list[int] = []

    def draw(self, row: int, text: Text, constraint: Constraint | None, also: tuple[int, ...]) -> int:
        new = text.length - self._length
        self._length = text.length
        self._added += text.last[max(0, len(text.last) - new) :]
        return self._draw(row, self._added, constraint, also)


class _Constraint:
    """A constraint of the child. It follows the tokens that the parent says it has accepted."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint, self._accepted = constraint, 0

    def after(self, tokens: tuple[int, ...]) -> Constraint:
        for token in tokens[self._accepted :]:
            self._constraint.accept(token)
        self._accepted = len(tokens)
        return self._constraint


class _Served:
    """The calls that a parent may make."""

    def __init__(self, pipe: Connection, stop: Stop) -> None:
        self._pipe = pipe
        self._stop = stop
        self._samplers: dict[int, _Sampler] = {}
        self._constraints: dict[int, _Constraint] = {}
        self._checkpoints: dict[int, Checkpoint] = {}

    def open(self, path: Path, options: OpenOptions) -> Facts:
        from runtime.llama import LlamaBackend

        self._backend: LlamaBackend = LlamaBackend(
            path, options, Run(self._stop, lambda event: self._pipe.send(("event", event)))
        )
        backend = self._backend
        return Facts(
            backend.slots,
            backend.sequences,
            backend.cuts_anywhere,
            backend.context,
            backend.longest,
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

    def draw(
        self,
        number: int,
        params: SamplingParams,
        seed: int,
        row: int,
        text: Text,
        allowed: tuple[Constrained, tuple[int, ...]] | None,
        finished: tuple[int, ...],
    ) -> int:
        for each in finished:
            self._samplers.pop(each, None)
            self._constraints.pop(each, None)
        if number not in self._samplers:
            self._samplers[number] = _Sampler(self._backend.sampler(params, seed, text.last), text.length)
        constraint, also = (self._constraint(allowed[0]), allowed[1]) if allowed is not None else (None, ())
        return self._samplers[number].draw(row, text, constraint, also)

    def _constraint(self, state: Constrained) -> Constraint:
        if state.number not in self._constraints:
            made = self._backend.constraint(state.grammar, state.begun)
            self._constraints[state.number] = _Constraint(made)
        return self._constraints[state.number].after(state.tokens)

    def is_complete(self, state: Constrained) -> bool:
        return self._constraint(state).complete

    def permits(self, state: Constrained, token: int) -> bool:
        return self._constraint(state).permits(token)

    def logprobs(self, row: int, token: int, count: int) -> Logprobs:
        return self._backend.logprobs(row, token, count)

    def statistics(self, row: int, token: int) -> TokenStatistics:
        return self._backend.statistics(row, token)

    def hidden_state(self, row: int) -> tuple[float, ...]:
        return self._backend.hidden_state(row)

    def fork(self, source: int, target: int) -> None:
        self._backend.fork(source, target)

    def trim(self, slot: int, length: int) -> bool:
        return self._backend.trim(slot, length)

    def earliest(self, slot: int) -> int:
        return self._backend.earliest(slot)

    def checkpoint(self, slot: int, number: int, finished: tuple[int, ...]) -> tuple[int, int] | None:
        """Keep a checkpoint under the parent's `number`; returns its length and size."""
        for each in finished:
            self._checkpoints.pop(each, None)
        checkpoint = self._backend.checkpoint(slot)
        if checkpoint is None:
            return None
        self._checkpoints[number] = checkpoint
        return checkpoint.length, checkpoint.size

    def restore(self, number: int, slot: int) -> bool:
        checkpoint = self._checkpoints.get(number)
        if checkpoint is None:  # it was in a child that is gone
            self._backend.trim(slot, 0)
            return False
        return self._backend.restore(checkpoint, slot)

    def tokenize(self, text: str, add_bos: bool, literal: tuple[int, ...]) -> list[int]:
        return list(self._backend.tokenize(text, add_bos=add_bos, literal=literal))

    def piece(self, token: int) -> tuple[bytes, bool]:
        return self._backend.piece(token), self._backend.ends(token)

    def set_threads(self, threads: int, batch_threads: int) -> None:
        self._backend.set_threads(threads, batch_threads)
