"""A model that reads a text only when it is asked for the next token, and shares what it read between texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from runtime.base.errors import NoRoom
from runtime.engine.backend import Backend, Batch
from runtime.engine.prefix_plan import FEW_TOKENS


class LateReader:
    """Knows the `texts` of all sequences, by slot, and how much of each the `backend` has read."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.texts: list[list[int]] = [[] for _ in range(backend.sequences)]
        self._read = [0] * backend.sequences

    def add(self, batch: Batch) -> None:
        """The texts go on with the tokens of a batch."""
        for token, position, slot in zip(batch.tokens, batch.positions, batch.slots, strict=True):
            del self.texts[slot][position:]
            self.texts[slot].append(token)

    def fork(self, source: int, target: int) -> None:
        """The text of `target` is that of `source`."""
        self.texts[target] = [*self.texts[source]]
        self._fork(source, target)

    def trim(self, slot: int, length: int) -> None:
        """Forget the tokens of a text from `length` on."""
        del self.texts[slot][length:]
        self._unread(slot, length)

    def read(self, ends: Sequence[tuple[int, int]]) -> list[int]:
        """Read the beginnings of texts, each a slot and a length that was not read before; those of one slot ascend.

        Returns the rows of the last decode that have the logits behind them; none if the cache has no room for these
        texts. Raises Aborted, Lost and EngineFailed.
        """
        slots = {slot for slot, _ in ends}
        try:
            return self._rows(ends)
        except NoRoom:
            # Texts at rest go first. They can be read again.
            for slot in {*range(len(self.texts))} - slots:
                self._unread(slot, 0)
        try:
            return self._rows(ends)
        except NoRoom:
            for slot in slots:
                self._unread(slot, 0)
            return []

    def _rows(self, ends: Sequence[tuple[int, int]]) -> list[int]:
        lengths: dict[int, list[int]] = {}
        for slot, length in ends:
            lengths.setdefault(slot, []).append(length)
        together = sum(each[-1] - self._read[slot] for slot, each in lengths.items()) <= self._backend.batch_size
        for slot, each in lengths.items():
            if each[0] - self._read[slot] > FEW_TOKENS or not together:
                self._share(slot, each[0] - 1)
                self._read_to(slot, each[0] - 1)
        batch, rows = Batch(), dict[tuple[int, int], int]()
        for slot, each in lengths.items():
            for start, length in pairwise([self._read[slot], *each]):
                batch.add(self.texts[slot][start:length], start, slot, output=True)
                rows[slot, length] = batch.outputs[-1]
        self._decode(batch)
        return [rows[end] for end in ends]

    def _share(self, slot: int, length: int) -> None:
        """Begin `slot` with what another text has in common with it, if that saves reading.

        A text that this one begins with, such as a prompt at rest, is read in its own sequence: then it stays there.
        """
        text = self.texts[slot][:length]
        best, donor = self._read[slot] + FEW_TOKENS, None
        for other, tokens in enumerate(self.texts):
            same = _common(text, tokens) if other != slot else 0
            usable = same if same == len(tokens) else min(same, self._read[other])
            if usable > best:
                best, donor = usable, other
        if donor is None:
            return
        if self._read[donor] < best:
            self._read_to(donor, best)
        self._fork(donor, slot)
        self._unread(slot, best)

    def _read_to(self, slot: int, length: int) -> None:
        text, size = self.texts[slot][:length], self._backend.batch_size
        for start in range(self._read[slot], length, size):
            batch = Batch()
            batch.add(text[start : start + size], start, slot, output=False)
            self._decode(batch)

    def _decode(self, batch: Batch) -> None:
        """Raises NoRoom with the cache unchanged. After another error the texts of the batch count as unread."""
        try:
            self._backend.decode(batch)
        except NoRoom:
            raise
        except BaseException:
            for slot in {*batch.slots}:
                self._unread(slot, 0)
            raise
        for position, slot in zip(batch.positions, batch.slots, strict=True):
            self._read[slot] = position + 1

    def _fork(self, source: int, target: int) -> None:
        if self._read[source]:
            self._backend.fork(source, target)
        else:
            self._backend.trim(target, 0)
        self._read[target] = self._read[source]

    def _unread(self, slot: int, length: int) -> None:
        """Forget what was read of a text from `length` on, or all of it, where the model cannot go back."""
        if self._read[slot] > length:
            kept = length if self._backend.trim(slot, length) else 0
            if not kept:
                self._backend.trim(slot, 0)
            self._read[slot] = kept


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of tokens that both begin with."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(at for at in range(length) if one[at] != other[at])
