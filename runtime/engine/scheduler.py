"""Decides which samples decode next. No I/O and no model: slots, KV cache cells, and the queue of waiting samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable

from runtime.engine.backend import Batch
from runtime.engine.sequence import Sequence


class Scheduler:
    """Continuous batching: a finished sample leaves its slot at once, and the next waiting one enters.

    All sequences share `context` cells; the first `shared` tokens of every prompt are cached once, in a slot that never
    draws.
    """

    def __init__(
        self, sequences: Iterable[Sequence], *, slots: int, context: int, batch_size: int, shared: int
    ) -> None:
        self.waiting = deque(sequences)
        self.active: list[Sequence] = []
        self._free = list(range(slots))
        self._most = slots
        self._chunks: list[tuple[Sequence, int]] = []
        self._context = context
        self._batch_size = batch_size
        self._shared = shared

    @property
    def busy(self) -> bool:
        return bool(self.active or self.waiting)

    def admit(self) -> list[Sequence]:
        """Give free slots to waiting samples while the cache has room for their prompts; returns who entered."""
        entered = []
        while self.waiting and self._free and len(self.active) < self._most:
            # Room for the prompt is enough: a sample that outgrows the cache later is sent back to the queue.
            newcomer = self.waiting[0]
            need = len(newcomer.request.prompt.tokens) + len(newcomer.tokens) - self._shared
            if self.active and self._cells() + need > self._context:
                break
            self.waiting.popleft()
            newcomer.enter(self._free.pop(0), self._shared)
            self.active.append(newcomer)
            entered.append(newcomer)
        if entered:
            for sequence in self.active:
                sequence.most_slots = max(sequence.most_slots, len(self.active))
        return entered

    def _cells(self) -> int:
        """Cells in use once everything pending is decoded."""
        return self._shared + sum(s.cached + len(s.pending) - self._shared for s in self.active)

    @property
    def room(self) -> int:
        """Cells that are free once everything pending is decoded."""
        return self._context - self._cells()

    def overfull(self) -> bool:
        """Whether the pending tokens do not fit any more."""
        return self.room < 0

    def alone(self) -> Sequence | None:
        """The only active sample, when one token of it is pending: its next tokens may be drafted."""
        return self.active[0] if len(self.active) == 1 and len(self.active[0].pending) == 1 else None

    def reenter(self, sequence: Sequence) -> None:
        """The slot of an active sample holds the shared prompt alone again; what it drew is pending."""
        sequence.enter(sequence.slot, self._shared)

    def next_batch(self) -> tuple[Batch, list[Sequence]]:
        """The tokens to decode, and the sequences that draw from its `outputs`, in the same order.

        Samples with few pending tokens go first, so the long prompt of a new sample does not make them wait.
        """
        batch, drawing = Batch(), []
        self._chunks = []
        room = self._batch_size
        for sequence in sorted(self.active, key=_pending):
            count = min(len(sequence.pending), room)
            if not count:
                break
            whole = count == len(sequence.pending)
            batch.add(sequence.pending[:count], sequence.cached, sequence.slot, output=whole)
            self._chunks.append((sequence, count))
            room -= count
            if whole:
                drawing.append(sequence)
        return batch, drawing

    def decoded(self) -> None:
        """Record that the tokens of the last batch are in the cache now."""
        for sequence, count in self._chunks:
            sequence.cached += count
            sequence.pending = sequence.pending[count:]

    def leave(self, sequence: Sequence) -> None:
        """Free the slot of a finished sample."""
        self.active.remove(sequence)
        self._free.insert(0, sequence.slot)

    def remove(self, samples: Container[int]) -> list[Sequence]:
        """The unfinished samples of these numbers; samples that wait leave the queue."""
        waiting = [sequence for sequence in self.waiting if sequence.request.sample in samples]
        for sequence in waiting:
            self.waiting.remove(sequence)
        return [*(sequence for sequence in self.active if sequence.request.sample in samples), *waiting]

    def halve(self) -> list[Sequence]:
        """Send the younger half of the samples back to the head of the queue; they keep their tokens.

        From now on no more samples run together than now stay: the cache had no room for more.
        """
        stay = self._most = (len(self.active) + 1) // 2
        sent_back = self.active[stay:]
        del self.active[stay:]
        for sequence in reversed(sent_back):
            self._free.insert(0, sequence.slot)
            self.waiting.appendleft(sequence)
        return sent_back


def _pending(sequence: Sequence) -> int:
    return len(sequence.pending)
