"""A model without a model: obeys the whole Backend interface, checks its callers, and says what a test wants."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence

from runtime.base.errors import Aborted, EngineFailed, NoRoom, OutOfGrammar, UsageError
from runtime.base.run import Stop
from runtime.base.types import Completion, Logprobs, SamplingParams, TokenLogprob, TokenStatistics
from runtime.engine.backend import CHUNK, Batch, Checkpoint, Constraint, Draw
from runtime.engine.embedding import Vector, batches, check_dimensions, check_texts, unit
from runtime.engine.grammar import Grammar

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


class FakeConstraint:
    """The grammar is a list of texts, separated by "|": the answer is one of them. "(" cannot be used."""

    def __init__(self, backend: FakeBackend, text: str, begun: str) -> None:
        if "(" in text:
            raise UsageError("the grammar cannot be used")
        self._backend, self._texts, self._said = backend, [each.encode() for each in text.split("|")], begun.encode()

    @property
    def complete(self) -> bool:
        return [each for each in self._texts if each.startswith(self._said)] == [self._said]

    def permits(self, token: int) -> bool:
        if token == END:
            return self._said in self._texts
        said = self._said + self._backend.piece(token)
        return said != self._said and any(each.startswith(said) for each in self._texts)

    def accept(self, token: int) -> None:
        assert self.permits(token), f"{token} is not in the grammar after {self._said!r}"
        self._said += self._backend.piece(token)


class FakeBackend:
    """Tokens are bytes; 256 ends a reply. `decoded` counts tokens computed, `batches` their sizes.

    Every sequence maps its positions to numbered cells, of which there are `context`, and every cell knows the text it
    stands for: a token in the wrong cell is noticed at once. `goes_back` is how many tokens `trim` can remove: None for
    any number, as with plain attention; 0 as with a recurrent state; some as with a window. A fork and a restored
    checkpoint have only what the next token sees, and cannot be cut.
    """

    def __init__(
        self,
        speak: Speaker,
        *,
        slots: int = 1,
        context: int = 1000,
        batch_size: int = 64,
        sequences: int | None = None,
        goes_back: int | None = None,
        reach: int | None = None,
        chunk_size: int = CHUNK,
    ) -> None:
        """`reach`: the most tokens of one sequence, where fewer than the context."""
        self._speak, self._reach = speak, reach
        self.chunk_size = chunk_size
        self._slots, self._context, self._batch_size = slots, context, batch_size
        self.sequences = sequences if sequences is not None else slots + (16 if goes_back is None else 1)
        self._goes_back = goes_back
        self._cells: dict[int, list[int]] = {sequence: [] for sequence in range(self.sequences)}
        self._whole = dict.fromkeys(range(self.sequences), 0)  # as much of a sequence cannot be cut
        self.lost: dict[int, int] = {}  # by sequence: as many cells of a full window are used again
        self._texts: dict[int, tuple[int, ...]] = {}  # cell -> the text up to its token
        self._numbered = 0
        self._checkpoints: list[tuple[int, ...]] = []
        self._rows: dict[int, list[int]] = {}
        self.stop = Stop()
        self.decoded = 0
        self.grafted = 0  # tokens that were moved
        self.inexact: set[int] = set()  # cells that were moved, or stand behind such a cell
        self.batches: list[int] = []
        self.abort_after: int | None = None
        self.abort_with = Aborted()
        self.refuse_above: int | None = None
        self.confidence: Callable[[list[int]], float] = lambda held: 4.0
        self.likelihood: Callable[[list[int], int], float] = lambda held, token: -0.5
        self.unsure: Callable[[list[int]], float] = lambda held: 0.0
        self.hidden: Callable[[list[int]], tuple[float, ...]] = lambda held: (0.0, 0.0)
        self._hidden_rows = False
        self.specials: dict[str, int] = {}
        self.most_outputs = max(slots + 1, 17)

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def context(self) -> int:
        return self._context

    @property
    def longest(self) -> int:
        return min(self._context, self._reach or self._context)

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

    @property
    def cuts_anywhere(self) -> bool:
        return self._goes_back is None

    def held(self, sequence: int) -> list[int]:
        """The tokens of a sequence."""
        cells = self._cells[sequence]
        return [self._texts[cell][-1] for cell in cells]

    def cells(self) -> int:
        """Cells in use: a forked prefix counts once."""
        return len({cell for cells in self._cells.values() for cell in cells})

    def decode(self, batch: Batch) -> None:
        """An abort leaves half of the batch in the cells, as the engine may."""
        assert 0 < len(batch.tokens) <= self._batch_size
        aborted = self.abort_after is not None and len(self.batches) >= self.abort_after
        if aborted or self.stop.take():
            self._fill(batch, len(batch.tokens) // 2)
            raise self.abort_with
        used = self.cells() + len(batch.tokens)
        if used > self._context or (self.refuse_above is not None and used > self.refuse_above):
            raise NoRoom("full")
        self._fill(batch, len(batch.tokens))
        assert len(batch.outputs) <= self.most_outputs
        assert not batch.hidden or len(batch.outputs) == len(batch.tokens), "the engine would put out all rows"
        self._hidden_rows = batch.hidden
        self._rows = {row: self.held(batch.slots[row])[: batch.positions[row] + 1] for row in batch.outputs}
        self.decoded += len(batch.tokens)
        self.batches.append(len(batch.tokens))

    def _fill(self, batch: Batch, count: int) -> None:
        rows = zip(batch.tokens[:count], batch.positions, batch.slots, strict=False)
        for token, position, slot in rows:
            cells = self._cells[slot]
            assert position == len(cells), f"sequence {slot}: position {position} after {len(cells)}"
            assert position < self.longest, f"position {position} of a model that reaches {self.longest}"
            before = self._texts[cells[-1]] if cells else ()
            assert len(before) == position, f"sequence {slot}: a cell of another text"
            self._numbered += 1
            self._texts[self._numbered] = (*before, token)
            if cells and cells[-1] in self.inexact:
                self.inexact.add(self._numbered)
            cells.append(self._numbered)

    def sampler(self, params: SamplingParams, seed: int, prompt: Sequence[int] = ()) -> Draw:
        """Checks that penalties would count exactly the text whose logits a row has."""

        def draw(
            row: int, reply: Sequence[int] = (), constraint: Constraint | None = None, also: Sequence[int] = ()
        ) -> int:
            held = self._rows[row]
            assert not prompt or [*prompt, *reply] == held, "the sampler was told another text"
            token = self._speak(held, seed)
            if constraint is None or token in also or constraint.permits(token):
                return token
            names = (*self.specials.values(), *range(END + 1))
            allowed = next((each for each in names if constraint.permits(each)), None)
            if allowed is None:
                raise OutOfGrammar("no token continues the answer in its grammar")
            return allowed

        return draw

    def constraint(self, grammar: Grammar, begun: str = "") -> FakeConstraint:
        return FakeConstraint(self, grammar.text, begun)

    def logprobs(self, row: int, token: int, count: int) -> Logprobs:
        assert row in self._rows
        drawn = self.likelihood(self._rows[row], token)
        return Logprobs(drawn, tuple(TokenLogprob(each, self.piece(each), -1.0 - each) for each in range(count)))

    def statistics(self, row: int, token: int) -> TokenStatistics:
        assert row in self._rows
        return TokenStatistics(self.likelihood(self._rows[row], token), self.confidence(self._rows[row]), 2.0)

    def entropy(self, row: int) -> float:
        return self.unsure(self._rows[row])

    def hidden_state(self, row: int) -> tuple[float, ...]:
        assert self._hidden_rows, "no hidden states were asked for"
        return self.hidden(self._rows[row])

    def fork(self, source: int, target: int) -> None:
        assert source != target
        self._cells[target] = [*self._cells[source]]
        self._whole[target] = len(self._cells[source])
        self.lost[target] = self.lost.get(source, 0)

    def earliest(self, slot: int) -> int:
        length = len(self._cells[slot])
        if self._goes_back is None:
            return max(1, self.lost.get(slot, 0))
        return max(length - self._goes_back, min(length, 1), self._whole[slot])

    def trim(self, slot: int, length: int) -> bool:
        if length and length < len(self._cells[slot]) and length < self.earliest(slot):
            return False
        del self._cells[slot][length:]
        self._whole[slot] = min(self._whole[slot], length)
        if not length:
            self.lost.pop(slot, None)
        return True

    def checkpoint(self, slot: int) -> Checkpoint | None:
        assert not self.cuts_anywhere, "a checkpoint that nobody needs"
        self._checkpoints.append(tuple(self.held(slot)))
        length = len(self._cells[slot])
        return Checkpoint(length, length, len(self._checkpoints) - 1) if length else None

    def restore(self, checkpoint: Checkpoint, slot: int) -> bool:
        state = self._checkpoints[checkpoint.data]
        assert tuple(self.held(slot)[: checkpoint.length]) == state, "a checkpoint of another text"
        del self._cells[slot][checkpoint.length :]
        self._whole[slot] = checkpoint.length
        return True

    @property
    def can_graft(self) -> bool:
        return self.cuts_anywhere

    def graft(self, source: int, begin: int, end: int, target: int) -> None:
        moved = self._cells[source][begin:end]
        self._cells[source] = []
        others = {cell for cells in self._cells.values() for cell in cells}
        assert source != target and others.isdisjoint(moved), "other sequences share the cells"
        for cell in moved:
            before = self.held(target)
            self._texts[cell] = (*before, self._texts[cell][-1])
            self._cells[target].append(cell)
        self.grafted += len(moved)
        self.inexact.update(moved)

    def is_exact(self, slot: int) -> bool:
        """Whether all cells of a sequence were read one after another."""
        return self.inexact.isdisjoint(self._cells[slot])

    def save(self, slot: int) -> bytes | None:
        moved = [place for place, cell in enumerate(self._cells[slot]) if cell in self.inexact]
        return repr((self.held(slot), moved, self.lost.get(slot, 0))).encode()

    def load(self, slot: int, data: bytes) -> bool:
        """A loaded state is as a fork: it has what the next token sees."""
        self.trim(slot, 0)
        tokens, moved, lost = ast.literal_eval(data.decode())
        if self.cells() + len(tokens) > self._context:
            return False
        for end in range(1, len(tokens) + 1):
            self._numbered += 1
            self._texts[self._numbered] = tuple(tokens[:end])
            self._cells[slot].append(self._numbered)
        self.inexact.update(self._cells[slot][place] for place in moved)
        self._whole[slot], self.lost[slot] = len(tokens), lost
        return True


class FakeEmbedder:
    """Obeys `TextEmbedder`. Tokens are bytes between 1 and 2; a vector tells how often a text has a, b, c and d."""

    dimensions = 4
    vocab_size = 256

    def __init__(self, *, longest: int = 20, together: int = 20, sequences: int = 3) -> None:
        self.longest, self._together, self._sequences = longest, together, sequences
        self.closed = False
        self.fails_at: int | None = None  # the batch that fails
        self.computed: list[int] = []  # texts of each batch

    def tokenize(self, text: str) -> list[int]:
        return [1, *text.encode(), 2]

    def shorten(self, tokens: Sequence[int]) -> list[int]:
        return list(tokens) if len(tokens) <= self.longest else [*tokens[: self.longest - 1], tokens[-1]]

    def embed(self, texts: Sequence[Sequence[int]], dimensions: int | None = None) -> list[Vector]:
        return [vector for done in self.embed_in_steps(texts, dimensions) for vector in done]

    def embed_in_steps(self, texts: Sequence[Sequence[int]], dimensions: int | None = None) -> Iterator[list[Vector]]:
        assert not self.closed
        check_dimensions(dimensions, self.dimensions)
        check_texts(texts, longest=self.longest, vocab_size=self.vocab_size)
        lengths = [len(text) for text in texts]
        for parts in batches(lengths, size=self._together, sequences=self._sequences, in_parts=False):
            if self.fails_at == len(self.computed):
                raise EngineFailed("the engine failed to embed")
            self.computed.append(len(parts))
            yield [unit([float(texts[part.text].count(byte)) for byte in b"abcd"], dimensions) for part in parts]

    def close(self) -> None:
        self.closed = True
