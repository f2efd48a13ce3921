"""A model without a model: obeys the whole Backend interface, checks its callers, and says what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime.base.errors import Aborted, NoRoom
from runtime.base.run import Stop
from runtime.base.types import Completion, SamplingParams, TokenStatistics
from runtime.engine.backend import Batch, Checkpoint, Draw

END = 256

# (everything the sequence holds, its seed) -> next token
Speaker = Callable[[list[int], int], int]


def saying(*replies: str, after: str) -> Speaker:
    """Says `replies[seed]` after a prompt that ends with `after`, byte by byte, then ends."""

    def speak(held: list[int], seed: int) -> int:
        text = bytes(token for token in held if token < 256)
        said = text[text.rindex(after.encode()) + len(after.encode()) :]
        reply = replies[seed % len(replies)].encode()
        return reply[len(said)] if len(said) < len(reply) and reply.startswith(said) else END

    return speak


def logprobs(completion: Completion) -> tuple[float, ...]:
    return tuple(each.logprob for each in completion.statistics)


class FakeBackend:
    """Tokens are bytes; 256 ends a reply. `decoded` counts tokens computed, `batches` their sizes."""

    def __init__(self, speak: Speaker, *, slots: int = 1, context: int = 1000, batch_size: int = 64) -> None:
        self._speak = speak
        self._slots, self._context, self._batch_size = slots, context, batch_size
        self._held: dict[int, list[int]] = {slot: [] for slot in range(slots + 1)}
        self._shared: dict[int, int] = dict.fromkeys(range(slots + 1), 0)
        self._rows: dict[int, list[int]] = {}
        self.stop = Stop()
        self.decoded = 0
        self.batches: list[int] = []
        self.abort_after: int | None = None
        self.refuse_above: int | None = None
        self.confidence: Callable[[list[int]], float] = lambda held: 4.0
        self.specials: dict[str, int] = {}
        self.most_outputs = max(slots + 1, 17)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def sequences(self) -> int:
        return self._slots + 1

    @property
    def cuts_anywhere(self) -> bool:
        return True

    @property
    def context(self) -> int:
        return self._context

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def tokenize(self, text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
        """Bytes, but for a text in `specials`, which is one token when it stands alone."""
        return [self.specials[text]] if text in self.specials else list(text.encode())

    def piece(self, token: int) -> bytes:
        names = {number: text.encode() for text, number in self.specials.items()}
        return names[token] if token in names else b"" if token == END else bytes([token])

    def ends(self, token: int) -> bool:
        return token == END

    def cells(self) -> int:
        """Cells in use: a forked prefix counts once."""
        return sum(len(held) - self._shared[slot] for slot, held in self._held.items())

    def decode(self, batch: Batch) -> None:
        assert 0 < len(batch.tokens) <= self._batch_size
        if self.abort_after is not None and len(self.batches) >= self.abort_after:
            raise Aborted
        if self.stop.take():
            raise Aborted
        refused = self.refuse_above is not None and self.cells() + len(batch.tokens) > self.refuse_above
        if refused or self.cells() + len(batch.tokens) > self._context:
            raise NoRoom("full")
        for token, position, slot in zip(batch.tokens, batch.positions, batch.slots, strict=True):
            assert position == len(self._held[slot]), f"slot {slot}: position {position} after {len(self._held[slot])}"
            self._held[slot].append(token)
        assert len(batch.outputs) <= self.most_outputs
        self._rows = {row: self._held[batch.slots[row]][: batch.positions[row] + 1] for row in batch.outputs}
        self.decoded += len(batch.tokens)
        self.batches.append(len(batch.tokens))

    def sampler(self, params: SamplingParams, seed: int) -> Draw:
        return lambda row: self._speak(self._rows[row], seed)

    def statistics(self, row: int, token: int) -> TokenStatistics:
        assert row in self._rows
        return TokenStatistics(-0.5, self.confidence(self._rows[row]), 2.0)

    def fork(self, source: int, target: int) -> None:
        assert not self._held[target], "a slot must be released before it is forked into"
        self._held[target] = list(self._held[source])
        self._shared[target] = len(self._held[source])

    def trim(self, slot: int, length: int) -> bool:
        del self._held[slot][length:]
        self._shared[slot] = min(self._shared[slot], length)
        return True

    def earliest(self, slot: int) -> int:
        return 1

    def checkpoint(self, slot: int) -> Checkpoint | None:
        return None

    def restore(self, checkpoint: Checkpoint, slot: int) -> bool:
        self.trim(slot, 0)
        return False

    def save(self, slot: int) -> bytes | None:
        return None

    def load(self, slot: int, data: bytes) -> bool:
        self.trim(slot, 0)
        return False
