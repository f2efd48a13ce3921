"""Parts of a backend that live in the child process: a sampler, a checkpoint, a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.base.types import SamplingParams
from runtime.engine.backend import Batch, Constraint
from runtime.engine.grammar import Grammar

if TYPE_CHECKING:
    from runtime.nodes.supervision import SupervisedBackend


class Text(NamedTuple):
    """The last tokens of a text of `length` tokens."""

    last: tuple[int, ...]
    length: int


class Constrained(NamedTuple):
    """What a child needs to know of a constraint: its number, and what a new child makes it of."""

    number: int
    grammar: Grammar
    begun: str
    tokens: tuple[int, ...]


class RemoteConstraint:
    """A `Constraint` in the child. After a loss it is made again there, of the tokens that it has accepted."""

    def __init__(self, backend: SupervisedBackend, number: int, grammar: Grammar, begun: str) -> None:
        """Raises UsageError as `Backend.constraint`."""
        self._backend = backend
        self._state = Constrained(number, grammar, begun, ())
        self._complete = self._ask("is_complete")

    @property
    def state(self) -> Constrained:
        return self._state

    @property
    def complete(self) -> bool:
        return self._complete

    def permits(self, token: int) -> bool:
        return self._ask("permits", token)

    def accept(self, token: int) -> None:
        self._state = self._state._replace(tokens=(*self._state.tokens, token))
        self._complete = self._ask("is_complete")

    def _ask(self, method: str, *arguments: int) -> bool:
        return self._backend.ask_constraint(method, self._state, *arguments)

    def __del__(self) -> None:
        self._backend.release(self._state.number)


class RemoteSampler:
    """Draws in the child. After a loss it starts again there, with the next seed and the text so far."""

    def __init__(
        self, backend: SupervisedBackend, number: int, params: SamplingParams, seed: int, prompt: Sequence[int]
    ) -> None:
        self._backend = backend
        self._number = number
        self._params = params
        self._seed = seed
        self._prompt = prompt

    def __call__(
        self, row: int, reply: Sequence[int] = (), constraint: Constraint | None = None, also: Sequence[int] = ()
    ) -> int:
        allowed = None
        if constraint is not None:
            assert isinstance(constraint, RemoteConstraint)
            allowed = constraint.state, tuple(also)
        token = self._backend.draw(self._number, self._params, self._seed, row, self._text(reply), allowed)
        self._seed = (self._seed + 1) % 2**32
        return token

    def _text(self, reply: Sequence[int]) -> Text:
        """The part of the text that the sampler has to know: a new child knows none of it."""
        most = self._params.remembered
        length = len(self._prompt) + len(reply)
        if most == 0:
            return Text((), length)
        begin = 0 if most < 0 else max(0, length - most)
        return Text((*self._prompt[begin:], *reply[max(0, begin - len(self._prompt)) :]), length)

    def __del__(self) -> None:
        self._backend.release(self._number)


class RemoteCheckpoint:
    """The `data` of a checkpoint: the child keeps it under a number, until this object is gone."""

    def __init__(self, backend: SupervisedBackend, number: int) -> None:
        self._backend = backend
        self.number = number

    def __del__(self) -> None:
        self._backend.drop_checkpoint(self.number)


class RemoteCache:
    """The part of a child's backend that a `CacheJournal` fills again."""

    def __init__(self, ask: Callable[..., Any], batch_size: int) -> None:
        self._ask = ask
        self.batch_size = batch_size

    def decode(self, batch: Batch) -> None:
        self._ask("decode", batch, tokens=len(batch.tokens))

    def fork(self, source: int, target: int) -> None:
        self._ask("fork", source, target)

    def trim(self, slot: int, length: int) -> bool:
        return bool(self._ask("trim", slot, length))
