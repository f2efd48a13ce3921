"""A backend of two models: a small one reads and draws, and a large one draws where the small one is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.base.errors import UsageError
from runtime.base.types import Logprobs, SamplingParams, TokenStatistics
from runtime.engine.backend import Backend, Batch, Checkpoint, Constraint, Draw
from runtime.engine.grammar import Grammar
from runtime.engine.routing.late_reader import LateReader


class Router(Backend, Protocol):
    """A small model that says how unsure it is."""

    def entropy(self, row: int) -> float:
        """The entropy of the next token in a row of the last decode, in nats, before sampling changes it."""
        ...


@dataclass(frozen=True, slots=True)
class RouteStatistics:
    """How many tokens both models drew: those of the small one, and of the large one."""

    small: int = 0
    large: int = 0


class RoutedBackend:
    """Obeys `Backend`. The small model computes each batch. Where the entropy of a wanted row is above `threshold`, the
    large model reads what it missed of this text, and the row is its own.

    If the cache of the large model has no room for a text, the small model draws that token. Texts cannot be saved.
    """

    can_graft = False

    def __init__(self, large: Backend, small: Router, threshold: float) -> None:
        self._large, self._small, self._threshold = large, small, threshold
        self._reader = LateReader(large)
        self._rows: dict[int, int] = {}  # row of the small model -> row of the large one
        self._drawn = RouteStatistics()

    def take_routes(self) -> RouteStatistics:
        """The statistics since the last call."""
        taken, self._drawn = self._drawn, RouteStatistics()
        return taken

    @property
    def slots(self) -> int:
        return min(self._large.slots, self._small.slots)

    @property
    def sequences(self) -> int:
        return min(self._large.sequences, self._small.sequences)

    @property
    def cuts_anywhere(self) -> bool:
        return self._small.cuts_anywhere

    @property
    def context(self) -> int:
        return min(self._large.context, self._small.context)

    @property
    def longest(self) -> int:
        return min(self._large.longest, self._small.longest)

    @property
    def batch_size(self) -> int:
        return min(self._large.batch_size, self._small.batch_size)

    @property
    def chunk_size(self) -> int:
        return self._small.chunk_size

    @property
    def most_outputs(self) -> int:
        return min(self._large.most_outputs, self._small.most_outputs)

    def tokenize(self, text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
        return self._large.tokenize(text, add_bos=add_bos, literal=literal)

    def piece(self, token: int) -> bytes:
        return self._large.piece(token)

    def ends(self, token: int) -> bool:
        return self._large.ends(token)

    def decode(self, batch: Batch) -> None:
        if batch.hidden:
            raise UsageError(
                "two models write this reply, and a value head reads the hidden states of one", hint="leave out --route"
            )
        self._rows = {}
        self._small.decode(batch)
        self._reader.add(batch)
        unsure = [row for row in batch.outputs if self._small.entropy(row) > self._threshold]
        rows = self._reader.read([(batch.slots[row], batch.positions[row] + 1) for row in unsure]) if unsure else []
        self._rows = dict(zip(unsure, rows, strict=False))
        self._drawn = RouteStatistics(self._drawn.small + len(batch.outputs) - len(rows), self._drawn.large + len(rows))

    def sampler(self, params: SamplingParams, seed: int, prompt: Sequence[int] = ()) -> Draw:
        small, large = (each.sampler(params, seed, prompt) for each in (self._small, self._large))

        def draw(
            row: int, reply: Sequence[int] = (), constraint: Constraint | None = None, also: Sequence[int] = ()
        ) -> int:
            assert constraint is None or isinstance(constraint, _BothConstraints)
            if row in self._rows:
                return large(self._rows[row], reply, constraint.large if constraint is not None else None, also)
            return small(row, reply, constraint.small if constraint is not None else None, also)

        return draw

    def constraint(self, grammar: Grammar, begun: str = "") -> Constraint:
        return _BothConstraints(self._large.constraint(grammar, begun), self._small.constraint(grammar, begun))

    def statistics(self, row: int, token: int) -> TokenStatistics:
        backend, row = self._drew(row)
        return backend.statistics(row, token)

    def logprobs(self, row: int, token: int, count: int) -> Logprobs:
        backend, row = self._drew(row)
        return backend.logprobs(row, token, count)

    def hidden_state(self, row: int) -> tuple[float, ...]:
        raise AssertionError("decode refuses it")

    def _drew(self, row: int) -> tuple[Backend, int]:
        return (self._large, self._rows[row]) if row in self._rows else (self._small, row)

    def fork(self, source: int, target: int) -> None:
        self._small.fork(source, target)
        self._reader.fork(source, target)

    def trim(self, slot: int, length: int) -> bool:
        trimmed = self._small.trim(slot, length)
        if trimmed:
            self._reader.trim(slot, length)
        return trimmed

    def earliest(self, slot: int) -> int:
        return self._small.earliest(slot)

    def checkpoint(self, slot: int) -> Checkpoint | None:
        return self._small.checkpoint(slot)

    def restore(self, checkpoint: Checkpoint, slot: int) -> bool:
        restored = self._small.restore(checkpoint, slot)
        self._reader.trim(slot, checkpoint.length if restored else 0)
        return restored

    def graft(self, source: int, begin: int, end: int, target: int) -> None:
        raise AssertionError("can_graft is False")

    def save(self, slot: int) -> bytes | None:
        return None

    def load(self, slot: int, data: bytes) -> bool:
        self.trim(slot, 0)
        return False


@dataclass(frozen=True, slots=True)
class _BothConstraints:
    """One place in one grammar, for both models."""

    large: Constraint
    small: Constraint

    @property
    def complete(self) -> bool:
        return self.large.complete

    def permits(self, token: int) -> bool:
        return self.large.permits(token)

    def accept(self, token: int) -> None:
        self.large.accept(token)
        self.small.accept(token)
