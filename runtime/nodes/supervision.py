"""A backend that uses nodes and survives their loss.

The engine runs in a child process, since native code aborts when a node dies and waits for ever when a node stalls. It
reaches each node through a relay, which sees what the node does wrong: a greeting says nothing about that. The parent
records every token in the cache. When the child is lost, the parent plans without the node at fault, opens the model
again, reads the tokens again, and continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from runtime.base.errors import Aborted, DoesNotFit, DsrError, EngineFailed, NodeLost
from runtime.base.events import Listener, Notice, ignore
from runtime.base.run import Run
from runtime.base.types import Logprobs, SamplingParams, TokenLogprob, TokenStatistics
from runtime.engine.backend import CHUNK, Batch, Checkpoint, Constraint, Draw
from runtime.engine.cache_journal import CacheJournal
from runtime.engine.grammar import Grammar
from runtime.nodes import client
from runtime.nodes.addresses import Address
from runtime.nodes.client import Node
from runtime.nodes.engine_process import ChildLost, EngineProcess
from runtime.nodes.relay import Relay
from runtime.nodes.remote_parts import (
    Constrained,
    RemoteCache,
    RemoteCheckpoint,
    RemoteConstraint,
    RemoteSampler,
    Text,
)
from runtime.nodes.silence import SilenceLimits

if TYPE_CHECKING:
    from runtime.llama import OpenOptions

# The nodes that answer -> how to open the model with them. Raises DoesNotFit.
Plan = Callable[[Sequence[Node]], "OpenOptions"]

_MOST_LOSSES = 3  # in a row, without one token in between and without a node at fault


class SupervisedBackend:
    """A `Backend` whose engine is a child process and uses `addresses`, as a context manager.

    A lost node raises NodeLost, which the engine treats like an abort: it keeps the text so far. The next call works
    without that node. With `retry`, the text continues at once instead, and `report` gets a Notice. Greedy text is the
    same as without the loss; a sampler starts again with another seed.
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
        """`run.listen` gets the progress of the first loading and its notices, `report` the later notices.

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
        self._numbered = 0  # samplers and constraints
        self._finished: list[int] = []
        self._checkpoints = 0
        self._dropped: list[int] = []
        self._losses = 0
        self._unheard = 0
        self._unheard_seconds = 0.0
        self._child: EngineProcess | None = None
        self._relays: tuple[Relay, ...] = ()
        self._left_out: list[Address] = []
        self.nodes: tuple[Node, ...] = ()
        self._first = True
        self._call("ready")
        self._first = False
        self._run = Run(self._run.stop)  # nobody looks at the progress of a loading in the middle of an answer

    def _open(self) -> None:
        """Open the model with the nodes that answer, and restore its cache. Raises ChildLost."""
        answering = []
        for address in self._addresses:
            try:
                answering.append(client.ask(address, bandwidth=True))
            except DsrError as error:
                if self._first and not self._retry:
                    raise
                self._left_out.append(address)
                self._say(f"{error.message}; continuing without this node")
        self._use(answering)
        self.opened = self._plan(self.nodes)
        bandwidths = {str(node.address): node.bandwidth for node in self.nodes}
        self._relays = tuple(Relay(Address.parse(node), bandwidths.get(node, 0.0)) for node in self.opened.nodes)
        try:
            self._open_child()
        except ChildLost:
            raise  # the relays tell which node was at fault
        except BaseException:
            self._drop_child()
            raise

    def _open_child(self) -> None:
        reached = replace(self.opened, nodes=tuple(str(relay.address) for relay in self._relays))
        limits = self._limits
        try:
            child = EngineProcess(
                self._path, reached, self._run, limits.loading, relays=self._relays, node_silence=limits.answer
            )
        except (EngineFailed, DoesNotFit) as error:
            raise self._refusal(error) or error from None
        self._child = child
        self._facts = child.facts
        self._unheard, self._unheard_seconds, self._per_token = 0, 0.0, child.facts.seconds_per_token
        if self._threads is not None:
            child.call("set_threads", *self._threads, max_silence=limits.silence)
        self._journal.restore(RemoteCache(partial(self._ask_child, child), child.facts.batch_size))

    def _refusal(self, error: DsrError) -> ChildLost | None:
        """The loss that an error of the engine means: a node without memory, or the node that the error names."""
        for relay in self._relays:
            if relay.refused is not None:
                return ChildLost(f"has no {relay.refused} of memory left", relay.node)
        for relay in self._relays:
            if str(relay.address) in error.message:
                return ChildLost(error.message.replace(str(relay.address), str(relay.node)), relay.node)
        return None

    def _use(self, answering: Sequence[Node]) -> None:
        self.nodes = tuple(answering)
        self._addresses = tuple(node.address for node in answering)

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
        for relay in self._relays:
            relay.close()
        self._relays = ()

    def _after_loss(self, lost: ChildLost) -> None:
        """After the child was lost: leave out the node at fault. Raises NodeLost without `retry`."""
        suspect = max(self._relays, key=lambda relay: relay.heard, default=None)
        self._drop_child()
        self._losses += 1
        faults = {lost.node: f"node {lost.node} {lost}"} if lost.node is not None else self._not_answering()
        if not faults and suspect is not None and self._losses > 1:
            what = f"the engine was lost {self._losses} times in a row ({lost}), the last time after an answer of"
            faults = {suspect.node: f"{what} node {suspect.node}"}
        self._left_out += faults
        self._use([node for node in self.nodes if node.address not in faults])
        if self._losses >= _MOST_LOSSES and not faults:
            losses, self._losses = self._losses, 0
            raise NodeLost(f"the engine was lost {losses} times without a token in between: {lost}")
        what = "; ".join(faults.values()) or f"the engine was lost ({lost}), and all nodes answer again"
        if not self._retry:
            later = "--retry goes on at once; in a conversation, ask again"
            raise NodeLost(what, hint="--retry goes on without it" if self._first else later)
        self._say(f"{what}; continuing{' without this node' if faults else ''}")

    def _say(self, text: str) -> None:
        (self._run.listen if self._first else self._report)(Notice(text))

    def _not_answering(self) -> dict[Address, str]:
        """The nodes that do not even greet, and why."""
        problems = {}
        for address in self._addresses:
            try:
                client.ask(address)
            except DsrError as error:
                problems[address] = error.message
        return problems

    def _call(self, method: str, *arguments: Any, tokens: int = 0) -> Any:
        """Call the child. It is opened again where it was lost before, or, with `retry`, where it is lost now."""
        while True:
            try:
                return self._ask_child(self._opened(), method, *arguments, tokens=tokens)
            except ChildLost as lost:
                self._after_loss(lost)

    def _opened(self) -> EngineProcess:
        if self._child is None:
            try:
                self._open()
            except DsrError as error:
                if isinstance(error, Aborted) or (self._first and not self._left_out):
                    raise
                # So that the text so far is kept.
                without = f"without node {', '.join(map(str, self._left_out))}: " if self._left_out else ""
                raise NodeLost(without + error.message, hint=error.hint) from None
        assert self._child is not None
        return self._child

    def _ask_child(self, child: EngineProcess, method: str, *arguments: Any, tokens: int = 0) -> Any:
        """Call the child. Its time grows with the tokens since the last draw, because a draw waits for them."""
        self._unheard += tokens
        max_silence = self._limits.of_tokens(self._unheard, self._per_token)
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
    def sequences(self) -> int:
        return self._facts.sequences

    @property
    def cuts_anywhere(self) -> bool:
        return self._facts.cuts_anywhere

    @property
    def can_graft(self) -> bool:
        return False  # the journal reads a lost cache again as one text

    @property
    def context(self) -> int:
        return self._facts.context

    @property
    def longest(self) -> int:
        return self._facts.longest

    @property
    def batch_size(self) -> int:
        return self._facts.batch_size

    @property
    def chunk_size(self) -> int:
        return CHUNK

    @property
    def most_outputs(self) -> int:
        return self._facts.most_outputs

    @property
    def vocab_size(self) -> int:
        return self._facts.vocab_size

    def tokenize(self, text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
        return list(self._call("tokenize", text, add_bos, tuple(literal)))

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

    def sampler(self, params: SamplingParams, seed: int, prompt: Sequence[int] = ()) -> Draw:
        self._numbered += 1
        return RemoteSampler(self, self._numbered, params, seed, prompt)

    def constraint(self, grammar: Grammar, begun: str = "") -> Constraint:
        self._numbered += 1
        return RemoteConstraint(self, self._numbered, grammar, begun)

    def draw(
        self,
        sampler: int,
        params: SamplingParams,
        seed: int,
        row: int,
        text: Text,
        allowed: tuple[Constrained, tuple[int, ...]] | None,
    ) -> int:
        """Draw with the child's sampler of that number; the child creates the sampler at its first use.

        `allowed`: a constraint, and the tokens that may come besides.
        """
        token = int(self._call("draw", sampler, params, seed, row, text, allowed, tuple(self._finished)))
        self._finished.clear()
        return token

    def ask_constraint(self, method: str, state: Constrained, *arguments: int) -> bool:
        """Ask the child's constraint of that number; the child creates it at its first use."""
        return bool(self._call(method, state, *arguments))

    def release(self, number: int) -> None:
        """A sampler or constraint is not needed any more."""
        self._finished.append(number)

    def logprobs(self, row: int, token: int, count: int) -> Logprobs:
        drawn, top = self._call("logprobs", row, token, count)
        return Logprobs(drawn, tuple(TokenLogprob(*each) for each in top))

    def statistics(self, row: int, token: int) -> TokenStatistics:
        return TokenStatistics(*self._call("statistics", row, token))

    def hidden_state(self, row: int) -> tuple[float, ...]:
        return tuple(self._call("hidden_state", row))

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

    def earliest(self, slot: int) -> int:
        # A new child reads as much of a text as is wanted.
        return 1 if self._child is None else int(self._call("earliest", slot))

    def checkpoint(self, slot: int) -> Checkpoint | None:
        self._checkpoints += 1
        dropped = tuple(self._dropped)
        made = self._call("checkpoint", slot, self._checkpoints, dropped)
        del self._dropped[: len(dropped)]
        if made is None:
            return None
        length, size = made
        return Checkpoint(length, size, RemoteCheckpoint(self, self._checkpoints))

    def drop_checkpoint(self, checkpoint: int) -> None:
        self._dropped.append(checkpoint)

    def restore(self, checkpoint: Checkpoint, slot: int) -> bool:
        """As `Backend.restore`. A checkpoint of a lost child is gone; without a child the journal is enough."""
        restored = self._child is None or bool(self._call("restore", checkpoint.data.number, slot))
        self._journal.trimmed(slot, checkpoint.length if restored else 0)
        return restored

    def graft(self, source: int, begin: int, end: int, target: int) -> None:
        raise EngineFailed("text in the cache of nodes cannot be moved")

    def save(self, slot: int) -> bytes | None:
        return None

    def load(self, slot: int, data: bytes) -> bool:
        self.trim(slot, 0)
        return False

    def set_threads(self, threads: int, batch_threads: int) -> None:
        self._threads = threads, batch_threads
        self._call("set_threads", threads, batch_threads)
