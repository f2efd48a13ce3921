"""A backend that uses nodes and survives their loss.

The engine runs in a child process, since native code aborts when a node dies and waits for ever when a node stalls. The
parent records every token in the cache. When the child is lost, the parent asks which nodes still answer, plans without
the others, opens the model again, reads the tokens again, and continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from runtime.base.errors import Aborted, DsrError, NodeLost
from runtime.base.events import Listener, Notice, ignore
from runtime.base.run import Run
from runtime.base.types import SamplingParams, TokenStatistics
from runtime.engine.backend import Batch, Draw
from runtime.engine.cache_journal import CacheJournal
from runtime.nodes import client
from runtime.nodes.addresses import Address
from runtime.nodes.client import Node
from runtime.nodes.engine_process import ChildLost, EngineProcess

if TYPE_CHECKING:
    from runtime.llama import OpenOptions

# The nodes that answer -> how to open the model with them. Raises DoesNotFit.
Plan = Callable[[Sequence[Node]], "OpenOptions"]

_MOST_LOSSES = 3  # in a row, without one token in between


@dataclass(frozen=True, slots=True)
class SilenceLimits:
    """Seconds of silence after which a node counts as stalled.

    `loading`: between two signs of progress while the model loads. Later: `silence`, plus `times` the expected time of
    the batch's tokens.
    """

    loading: float = 120.0
    silence: float = 15.0
    times: float = 4.0


class SupervisedBackend:
    """A `Backend` whose engine is a child process and uses `addresses`, as a context manager.

    A lost node raises NodeLost, which the engine treats like an abort: it keeps the text so far. The next call goes on
    without that node. With `retry` nothing is raised, the text goes on at once, and `report` gets a Notice. Greedy text
    is the same as without the loss; a sampler starts again with another seed.
    """

    def __init__(
        self,
        path: Path,
        addresses: Sequence[Address],
        plan: Plan,
        *,
        retry: bool = False,
        run: Run | None = None,
        report: Listener = ignore,
        limits: SilenceLimits | None = None,
    ) -> None:
        """`run.listen` gets the progress of the first loading, `report` the notices about lost nodes.

        Raises NetworkError or Incompatible for a node that cannot be used, unless `retry`; else as LlamaBackend.
        """
        self._path = path
        self._addresses = tuple(addresses)
        self._plan = plan
        self._retry = retry
        self._run = run or Run()
        self._report = report
        self._limits = limits or SilenceLimits()
        self._journal = CacheJournal()
        self._per_token = 0.0
        self._threads: tuple[int, int] | None = None
        self._pieces: dict[int, tuple[bytes, bool]] = {}
        self._samplers = 0
        self._finished: list[int] = []
        self._losses = 0
        self._unheard = 0
        self._unheard_seconds = 0.0
        self._child: EngineProcess | None = None
        self.nodes: tuple[Node, ...] = ()
        self._first = True
        self._call("ready")
        self._first = False
        self._run = Run(self._run.stop)  # nobody looks at the progress of a loading in the middle of an answer

    def _open(self) -> None:
        """Open the model with the nodes that answer, and restore its cache."""
        answering = []
        for address in self._addresses:
            try:
                answering.append(client.ask(address, bandwidth=True))
            except DsrError as error:
                if self._first and not self._retry:
                    raise
                self._report(Notice(f"{error.message}; continuing without this node"))
        self._use(answering)
        self.opened = self._plan(self.nodes)
        child = EngineProcess(self._path, self.opened, self._run, max_silence=self._limits.loading)
        self._child = child
        self._facts = child.facts
        self._unheard, self._unheard_seconds, self._per_token = 0, 0.0, child.facts.seconds_per_token
        try:
            if self._threads is not None:
                child.call("set_threads", *self._threads, max_silence=self._limits.silence)
            self._journal.restore(_Restored(partial(self._ask_child, child), child.facts.batch_size))
        except BaseException:
            self._drop_child()
            raise

    def _use(self, answering: Sequence[Node]) -> None:
        self.nodes = tuple(answering)
        self._addresses = tuple(node.address for node in answering)

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _after_loss(self, reason: str) -> None:
        """After the child was lost: leave out the nodes that do not answer. Raises NodeLost without `retry`."""
        self._drop_child()
        self._losses += 1
        answering, dead = [], []
        for address in self._addresses:
            try:
                answering.append(client.ask(address))
            except DsrError as error:
                dead.append(error.message)
        self._use(answering)
        if self._losses >= _MOST_LOSSES:
            lost = f"the engine was lost {self._losses} times without a token in between: {reason}"
            self._losses = 0
            raise NodeLost(lost)
        what = "; ".join(dead) or f"the engine was lost ({reason}), and all nodes answer again"
        if not self._retry:
            raise NodeLost(what, hint="--retry goes on at once; in a conversation, ask again")
        self._report(Notice(f"{what}; continuing{' without this node' if dead else ''}"))

    def _call(self, method: str, *arguments: Any, tokens: int = 0) -> Any:
        """Call the child. It is opened again where it was lost before, or, with `retry`, where it is lost now."""
        while True:
            try:
                return self._ask_child(self._opened(), method, *arguments, tokens=tokens)
            except ChildLost as lost:
                self._after_loss(str(lost))

    def _opened(self) -> EngineProcess:
        if self._child is None:
            try:
                self._open()
            except DsrError as error:
                if self._first or isinstance(error, Aborted):
                    raise
                raise NodeLost(error.message, hint=error.hint) from None  # so that the text so far is kept
        assert self._child is not None
        return self._child

    def _ask_child(self, child: EngineProcess, method: str, *arguments: Any, tokens: int = 0) -> Any:
        """Call the child. Its time grows with the tokens since the last draw, because a draw waits for them."""
        self._unheard += tokens
        max_silence = self._limits.silence + self._limits.times * self._unheard * self._per_token
        started = time.monotonic()
        try:
            answer = child.call(method, *arguments, max_silence=max_silence)
        except KeyboardInterrupt:
            self._drop_child()  # its answer would be taken for that to the next call
            raise
        self._unheard_seconds += time.monotonic() - started
        if method == "draw" and self._unheard:
            self._per_token = max(self._per_token, self._unheard_seconds / self._unheard)
            self._unheard, self._unheard_seconds, self._losses = 0, 0.0, 0
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._drop_child()

    @property
    def slots(self) -> int:
        return self._facts.slots

    @property
    def context(self) -> int:
        return self._facts.context

    @property
    def batch_size(self) -> int:
        return self._facts.batch_size

    @property
    def most_outputs(self) -> int:
        return self._facts.most_outputs

    @property
    def vocab_size(self) -> int:
        return self._facts.vocab_size

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return list(self._call("tokenize", text, add_special))

    def piece(self, token: int) -> bytes:
        return self._spelled(token)[0]

    def ends(self, token: int) -> bool:
        return self._spelled(token)[1]

    def _spelled(self, token: int) -> tuple[bytes, bool]:
        if token not in self._pieces:
            self._pieces[token] = self._call("piece", token)
        return self._pieces[token]

    def decode(self, batch: Batch) -> None:
        if self._run.stop.take():
            raise Aborted
        self._call("decode", batch, tokens=len(batch.tokens))
        self._journal.decoded(batch)

    def sampler(self, params: SamplingParams, seed: int) -> Draw:
        self._samplers += 1
        return _Sampler(self, self._samplers, params, seed)

    def draw(self, sampler: int, params: SamplingParams, seed: int, row: int) -> int:
        """Draw with the child's sampler of that number; the child creates the sampler at its first use."""
        token = int(self._call("draw", sampler, params, seed, row, tuple(self._finished)))
        self._finished.clear()
        return token

    def release(self, sampler: int) -> None:
        self._finished.append(sampler)

    def statistics(self, row: int, token: int) -> TokenStatistics:
        return TokenStatistics(*self._call("statistics", row, token))

    def fork(self, source: int, target: int) -> None:
        if self._child is not None:
            self._call("fork", source, target)
        self._journal.forked(source, target)

    def trim(self, slot: int, length: int) -> bool:
        # A sample that ends after a loss needs no new child: the journal is enough.
        trimmed = self._child is None or bool(self._call("trim", slot, length))
        if trimmed:
            self._journal.trimmed(slot, length)
        return trimmed

    def set_threads(self, threads: int, batch_threads: int) -> None:
        self._threads = threads, batch_threads
        self._call("set_threads", threads, batch_threads)


class _Sampler:
    """Draws in the child. After a loss it starts again there, with the next seed."""

    def __init__(self, backend: SupervisedBackend, number: int, params: SamplingParams, seed: int) -> None:
        self._backend = backend
        self._number = number
        self._params = params
        self._seed = seed

    def __call__(self, row: int) -> int:
        token = self._backend.draw(self._number, self._params, self._seed, row)
        self._seed = (self._seed + 1) % 2**32
        return token

    def __del__(self) -> None:
        self._backend.release(self._number)


class _Restored:
    """The part of `Backend` that restores a cache."""

    def __init__(self, ask: Callable[..., Any], batch_size: int) -> None:
        self._ask = ask
        self.batch_size = batch_size

    def decode(self, batch: Batch) -> None:
        self._ask("decode", batch, tokens=len(batch.tokens))

    def fork(self, source: int, target: int) -> None:
        self._ask("fork", source, target)

    def trim(self, slot: int, length: int) -> bool:
        return bool(self._ask("trim", slot, length))
