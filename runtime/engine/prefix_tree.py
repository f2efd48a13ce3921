"""The prefix tree of a KV cache: which sequence holds which tokens, and how many cells they share. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from runtime.base.common_prefix import common_length
from runtime.engine.backend import Checkpoint


@dataclass(eq=False, slots=True)
class _Run:
    """Consecutive cells that the same sequences hold. `start` is the position of its first token.

    `checkpoints` lie inside of it: start < length <= end.
    """

    start: int
    tokens: list[int]
    parent: _Run | None
    holders: set[int]
    children: list[_Run] = field(default_factory=list)
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class PrefixTree:
    """The tokens of all sequences as a radix tree: each edge is a run of tokens, which is in the cache once.

    A fork shares the cells of its source. Two sequences that decoded the same tokens separately have two runs, as they
    have cells of their own. So `used` is the real number of cells. Every sequence ends where a run ends.
    """

    def __init__(self) -> None:
        self._root = _Run(0, [], None, set())
        self._ends: dict[int, _Run] = {}
        self.used = 0  # cells that hold a token

    def length(self, sequence: int) -> int:
        return self._ends[sequence].end if sequence in self._ends else 0

    def tokens(self, sequence: int) -> tuple[int, ...]:
        return tuple(token for run in self._path(sequence) for token in run.tokens)

    def cells(self, sequences: Collection[int]) -> int:
        """Cells that hold a token of these sequences."""
        return sum(len(run.tokens) for run in self._runs() if not run.holders.isdisjoint(sequences))

    def append(self, sequence: int, tokens: Sequence[int]) -> None:
        """The sequence got `tokens`, in new cells."""
        if not tokens:
            return
        self.used += len(tokens)
        end = self._ends.get(sequence, self._root)
        if end.parent is not None and end.holders == {sequence}:
            end.tokens += tokens
            return
        run = _Run(end.end, [*tokens], end, {sequence})
        end.children.append(run)
        self._ends[sequence] = run

    def holders(self, sequence: int, begin: int, end: int) -> set[int]:
        """All sequences that share cells with positions `begin` to `end` of this one, itself included."""
        runs = (run for run in self._path(sequence) if run.start < end and begin < run.end)
        return {holder for run in runs for holder in run.holders}

    def fork(self, source: int, target: int) -> None:
        """Let `target` hold the cells of `source`, and no others."""
        self.truncate(target, 0)
        if source not in self._ends:
            return
        for run in self._path(source):
            run.holders.add(target)
        self._ends[target] = self._ends[source]

    def truncate(self, sequence: int, length: int) -> None:
        """Release the cells of a sequence from position `length` on. Cells without a holder are free."""
        for run in reversed(self._path(sequence)):
            if run.end <= length:
                break
            if run.start < length:
                self._split(run, length)
                run = run.children[0]
            run.holders.discard(sequence)
            assert run.parent is not None
            self._ends[sequence] = run.parent
            if not run.holders:
                self.used -= len(run.tokens)
                run.parent.children.remove(run)
        if self._ends.get(sequence) is self._root:
            del self._ends[sequence]

    def common(self, tokens: Sequence[int]) -> dict[int, int]:
        """For each sequence that begins as `tokens` do, the number of tokens that are the same."""
        found: dict[int, int] = {}
        reached = [self._root]
        while reached:
            run = reached.pop()
            for child in run.children:
                same = common_length(child.tokens, tokens, child.start)
                if same:
                    found |= dict.fromkeys(child.holders, child.start + same)
                if same == len(child.tokens):
                    reached.append(child)
        return found

    def add_checkpoint(self, sequence: int, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint of the first `checkpoint.length` tokens of a sequence, until their last cell is freed."""
        for run in self._path(sequence):
            if run.start < checkpoint.length <= run.end:
                run.checkpoints[checkpoint.length] = checkpoint

    def checkpoints(self, sequence: int) -> dict[int, Checkpoint]:
        """The checkpoints of the tokens that a sequence holds, by length."""
        return {length: each for run in self._path(sequence) for length, each in run.checkpoints.items()}

    def all_checkpoints(self) -> list[Checkpoint]:
        return [each for run in self._runs() for each in run.checkpoints.values()]

    def drop_checkpoint(self, checkpoint: Checkpoint) -> None:
        for run in self._runs():
            if run.checkpoints.get(checkpoint.length) is checkpoint:
                del run.checkpoints[checkpoint.length]

    def _path(self, sequence: int) -> list[_Run]:
        path: list[_Run] = []
        run = self._ends.get(sequence)
        while run is not None and run.parent is not None:
            path.append(run)
            run = run.parent
        return path[::-1]

    def _runs(self) -> Iterator[_Run]:
        reached = [*self._root.children]
        while reached:
            run = reached.pop()
            yield run
            reached += run.children

    def _split(self, run: _Run, length: int) -> None:
        """Cut a run in two before position `length`; `run` stays the first part."""
        at = length - run.start
        rest = _Run(length, run.tokens[at:], run, {*run.holders}, run.children)
        rest.checkpoints = {n: each for n, each in run.checkpoints.items() if n > length}
        for child in rest.children:
            child.parent = rest
        for sequence, end in self._ends.items():
            if end is run:
                self._ends[sequence] = rest
        run.checkpoints = {n: each for n, each in run.checkpoints.items() if n <= length}
        run.tokens, run.children = run.tokens[:at], [rest]
