"""Parts of a backend that live in the child process: a sampler, a checkpoint, a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.base.types import SamplingParams
from runtime.engine.backend import Batch

if TYPE_CHECKING:
    from runtime.nodes.supervision import SupervisedBackend


class Text(NamedTuple):
    """The last tokens of a text of `length` tokens."""

    last: tuple[int, ...]
    length: int


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

    def __call__(self, row: int, reply: Sequence[int] = ()) -> int:
        token = self._backend.draw(self._number, self._params, self._seed, row, self._text(reply))
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
        self._backend.release_sampler(self._number)


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
