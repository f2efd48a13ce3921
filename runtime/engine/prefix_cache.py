"""Keeps texts in the KV cache for later ones that begin alike: RadixAttention (arXiv 2312.07104, section 3).

`plan_start` decides where a text begins. `PrefixCache` obeys, and keeps the prefix tree equal to the backend's cells.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.base.errors import Aborted, NodeLost
from runtime.engine.backend import Backend, Batch, Checkpoint
from runtime.engine.kept_state import KeptState
from runtime.engine.prefix_plan import FEW_TOKENS, Held, Start, plan_start
from runtime.engine.prefix_tree import PrefixTree
from runtime.engine.splice import Splice, find_splice

# Tokens that a splice must save: the shift takes one pass over all keys, which costs as much as some tokens do.
_WORTH_A_SPLICE = 64


class PrefixCache:
    """The sequences of a backend: busy ones draw or read, idle ones hold earlier texts.

    All sequences together keep at most `most_checkpoints`. The least recently used one goes first, except that a new
    one goes itself if a shorter one saves nearly as many tokens.
    """

    def __init__(self, backend: Backend, most_checkpoints: int) -> None:
        self._backend = backend
        self._most_checkpoints = most_checkpoints
        self._tree = PrefixTree()
        self._busy: set[int] = set()
        self._idle: dict[int, None] = {}  # the least recently used first
        self._checkpoints: list[Checkpoint] = []
        self._exact: dict[int, int] = {}  # by sequence: the length at which it was spliced; later tokens are inexact
        # Another engine may have left its text there.
        for sequence in range(backend.sequences):
            backend.trim(sequence, 0)

    @property
    def cells(self) -> int:
        """The number of cells that hold a token."""
        return self._tree.used

    def length(self, sequence: int) -> int:
        return self._tree.length(sequence)

    def plan(self, tokens: Sequence[int], *, approximate: bool = False) -> Start | None:
        """Where a text begins that needs no more than `tokens` cached; None while every sequence is busy.

        `approximate` texts may begin with spliced ones, and may be spliced themselves.
        """
        common = self._common(tokens, approximate)
        start = plan_start(common, free=self._free, idle=[*self._idle], busy=self._busy)
        return self._with_splice(start, tokens) if start is not None and approximate else start

    @property
    def _free(self) -> set[int]:
        """Sequences that hold nothing, and that nobody uses."""
        return {*range(self._backend.sequences)} - self._busy - self._idle.keys()

    def _with_splice(self, start: Start, tokens: Sequence[int]) -> Start:
        """`start`, or one with a splice that saves more tokens."""
        best, free = start, self._free
        for source in self._idle:
            least = (best.splice.prefix + best.splice.moved if best.splice else start.length) + _WORTH_A_SPLICE
            if self._tree.length(source) < least or len(tokens) < least:
                continue
            splice = find_splice(self._tree.tokens(source), tokens)
            if splice is None or splice.prefix + splice.moved < least:
                continue
            if self._backend.earliest(source) > max(1, splice.begin):  # the engine wrote to cells of its windows
                continue
            if not self._busy.isdisjoint(self._tree.holders(source, splice.begin, splice.end)):
                continue
            others = [one for one in self._idle if one != source]
            if free or others:
                target = min(free) if free else others[0]
                dropped = () if free else (target,)
                best = Start(target, source, splice.prefix, dropped=dropped, splice=splice)
        return best

    def cells_with(self, sequence: int | None) -> int:
        """Cells that cannot be freed while `sequence` is in use, too: those of all busy sequences and its own."""
        return self._tree.cells(self._busy if sequence is None else {*self._busy, sequence})

    def begin(self, start: Start) -> Start:
        """Do as planned; the `target` is busy from now on.

        Returns how the text really began: with nothing, if the backend refused a checkpoint.
        """
        for sequence in start.dropped:
            self.drop(sequence)
        if start.source is not None and not self._obey(start):
            start = Start(start.target)
        self._idle.pop(start.target, None)
        self._busy.add(start.target)
        if start.splice is not None and start.source in self._idle:
            self._idle[start.source] = self._idle.pop(start.source)  # to be dropped last
        return start

    def graft(self, splice: Splice, source: int, target: int, moved: Sequence[int]) -> bool:
        """Append the part of `source` to `target`. False if `source` no longer holds the tokens `moved` there.

        Idle sequences that share the part are dropped.
        """
        others = self._tree.holders(source, splice.begin, splice.end) - {source}
        here = self._tree.tokens(source)[splice.begin : splice.end]
        if source not in self._idle or here != tuple(moved) or not self._busy.isdisjoint(others):
            return False
        for other in others:
            self.drop(other)
        self._backend.graft(source, splice.begin, splice.end, target)
        self._exact.setdefault(target, self._tree.length(target))
        self._tree.truncate(source, 0)
        self._tree.append(target, moved)
        self.drop(source)
        return True

    def fork(self, source: int) -> int | None:
        """A new busy sequence with all tokens of `source`; None while every other sequence is busy."""
        free = self._free - {source}
        target = min(free) if free else next((one for one in self._idle if one != source), None)
        if target is None:
            return None
        self.drop(target)
        self._fork(source, target)
        self._busy.add(target)
        return target

    def _fork(self, source: int, target: int) -> None:
        self._backend.fork(source, target)
        self._tree.fork(source, target)
        self._exact.pop(target, None)
        if source in self._exact:
            self._exact[target] = self._exact[source]

    def decoded(self, batch: Batch) -> None:
        """Record that the tokens of a batch are in the cache now. Each sequence has consecutive rows in it."""
        begin, slots = 0, batch.slots
        for row in range(1, len(slots) + 1):
            if row == len(slots) or slots[row] != slots[begin]:
                self._tree.append(slots[begin], batch.tokens[begin:row])
                begin = row

    def trim(self, sequence: int, length: int) -> bool:
        """As `Backend.trim`."""
        if not self._backend.trim(sequence, length):
            return False
        self._tree.truncate(sequence, length)
        if sequence in self._exact and self._exact[sequence] >= length:
            del self._exact[sequence]
        return True

    def restore(self, checkpoint: Checkpoint, sequence: int) -> bool:
        """As `Backend.restore`."""
        if not self._backend.restore(checkpoint, sequence):
            self._forget(sequence)
            return False
        self._tree.truncate(sequence, checkpoint.length)
        return True

    def settle(self, batch: Batch) -> None:
        """Remove the parts of an aborted batch that are in the cache, or, if that is impossible, the whole texts."""
        for sequence in dict.fromkeys(batch.slots):
            if not self._backend.trim(sequence, self._tree.length(sequence)):
                self._forget(sequence)

    def release(self, sequence: int) -> None:
        """The sequence becomes idle: it keeps its text until its cells or the sequence itself are needed."""
        self._busy.discard(sequence)
        self._idle.pop(sequence, None)
        if self._tree.length(sequence):
            self._idle[sequence] = None

    def make_room(self, cells: int) -> bool:
        """Drop idle sequences until `cells` cells are free; False if that is not enough."""
        while self._tree.used + cells > self._backend.context:
            oldest = next(iter(self._idle), None)
            if oldest is None:
                return False
            self.drop(oldest)
        return True

    def drop_idle(self) -> bool:
        """Drop every idle sequence; False if there was none."""
        dropped = [*self._idle]
        for sequence in dropped:
            self.drop(sequence)
        return bool(dropped)

    def keep_checkpoint(self, sequence: int) -> None:
        """Keep a checkpoint of the sequence as it is now, if its backend cannot go back to any length."""
        if self._backend.cuts_anywhere or self._tree.length(sequence) in self._tree.checkpoints(sequence):
            return
        made = self._backend.checkpoint(sequence)
        if made is None:
            return
        self._remember(sequence, made)

    def _remember(self, sequence: int, checkpoint: Checkpoint) -> None:
        self._tree.add_checkpoint(sequence, checkpoint)
        alive = {id(each) for each in self._tree.all_checkpoints()}
        self._checkpoints = [each for each in (*self._checkpoints, checkpoint) if id(each) in alive]
        if len(self._checkpoints) > self._most_checkpoints:
            shorter = [length for length in self._tree.checkpoints(sequence) if length < checkpoint.length]
            spares = checkpoint.length - max(shorter, default=0)
            dropped = checkpoint if spares <= FEW_TOKENS else self._checkpoints[0]
            self._checkpoints.remove(dropped)
            self._tree.drop_checkpoint(dropped)

    def export(self, tokens: Sequence[int]) -> KeptState | None:
        """The state of the sequence that has the longest prefix of `tokens`; None if nothing can be saved."""
        common = self._common(tokens)
        reached = {sequence: held.reach(same)[0] for sequence, (same, held) in common.items()}
        source = max(reached, key=lambda one: reached[one], default=None)
        if source is None or not reached[source]:
            return None
        saved, copy = source, None
        if self._backend.cuts_anywhere and reached[source] < self._tree.length(source):
            # A fork of the prefix alone, for a smaller file.
            copy = self.fork(source)
            if copy is None:
                return None
            if not self.trim(copy, reached[source]):
                self.drop(copy)
                return None
            saved = copy
        kept = self._save(saved)
        if copy is not None:
            self.drop(copy)
        return kept

    def _save(self, sequence: int) -> KeptState | None:
        try:
            state = self._backend.save(sequence)
        except MemoryError:
            return None
        if state is None:
            return None
        checkpoints = sorted(self._tree.checkpoints(sequence).items())
        return KeptState(self._tree.tokens(sequence), state, tuple(each for _, each in checkpoints))

    def adopt(self, kept: KeptState) -> bool:
        """Cache a saved state as if it had been read; False if it has no room or the backend refuses it."""
        return self._load(kept, None) is not None

    def _load(self, kept: KeptState, exact: int | None) -> int | None:
        """The idle sequence that holds a saved state now, `exact` tokens of it exactly; None as `adopt` says."""
        start = self.plan(())
        if start is None or len(kept.tokens) > self._backend.context - self.cells_with(None):
            return None
        start = self.begin(start)
        fits = self.make_room(len(kept.tokens)) and self._backend.load(start.target, kept.state)
        if fits:
            self._tree.append(start.target, kept.tokens)
            if exact is not None and exact < len(kept.tokens):
                self._exact[start.target] = exact
            for checkpoint in kept.checkpoints:
                self._remember(start.target, checkpoint)
        self.release(start.target)
        return start.target if fits else None

    def after_loss(self, error: Aborted) -> None:
        """Forget everything if the cells are gone: reading them again would cost more than they may save."""
        if isinstance(error, NodeLost):
            for sequence in [*self._busy, *self._idle]:
                self._forget(sequence)

    def _common(self, tokens: Sequence[int], approximate: bool = False) -> dict[int, tuple[int, Held]]:
        found = {}
        for sequence, same in self._tree.common(tokens).items():
            length = same if approximate else min(same, self._exact.get(sequence, same))
            found[sequence] = length, self._held(sequence, length)
        return found

    def _held(self, sequence: int, same: int) -> Held:
        length = self._tree.length(sequence)
        if not self._backend.cuts_anywhere:
            return Held(length, max(2, self._backend.earliest(sequence)), self._tree.checkpoints(sequence))
        # Full windows lose cells, too: the engine reuses a cell outside the window of its sequence
        # (llama_kv_cache::find_slot in src/llama-kv-cache.cpp).
        whole = same == length or self._backend.earliest(sequence) <= same
        return Held(length, 1 if whole else length, {})

    def _obey(self, start: Start) -> bool:
        """Fork, restore and trim. False if the backend cannot; the target then holds nothing."""
        assert start.source is not None
        if start.target != start.source:
            self._fork(start.source, start.target)
        if start.checkpoint is not None:
            if not self.restore(start.checkpoint, start.target):
                return False
            self._checkpoints.sort(key=lambda each: each is start.checkpoint)  # stable: to the end
        elif start.length < self._tree.length(start.target) and not self.trim(start.target, start.length):
            self._forget(start.target)
            return False
        return True

    def drop(self, sequence: int) -> None:
        """Free a sequence and its cells."""
        if self._tree.length(sequence):
            self._forget(sequence)
        self._busy.discard(sequence)
        self._idle.pop(sequence, None)

    def _forget(self, sequence: int) -> None:
        self._backend.trim(sequence, 0)
        self._tree.truncate(sequence, 0)
        self._exact.pop(sequence, None)
