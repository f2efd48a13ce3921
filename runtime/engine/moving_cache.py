"""A prefix cache whose idle texts move to host memory when they crowd a text that runs alone, and come back from there.

They leave before the text reads its first token, so that it gets the first cells: attention covers all cells up to the
highest used one.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.engine.backend import Backend
from runtime.engine.host_cache import HostCache, HostText
from runtime.engine.prefix_cache import PrefixCache
from runtime.engine.prefix_plan import FEW_TOKENS, Held, Start, is_crowded


class MovingCache(PrefixCache):
    """A `PrefixCache` with up to `host_bytes` of texts in host memory."""

    def __init__(self, backend: Backend, most_checkpoints: int, host_bytes: int) -> None:
        super().__init__(backend, most_checkpoints)
        self._limit = host_bytes
        self._host = HostCache(host_bytes)
        self._scattered = False  # whether texts lie behind cells that `rest` freed

    @property
    def moved(self) -> int:
        """The tokens of texts in host memory."""
        return self._host.tokens

    def rest(self) -> bool:
        """While nothing is at work, move one idle text to host memory, if they crowd the last used one.

        That one stays, in the first cells at last. So the next text begins sooner: `move_out` has less to do. False if
        nothing is left to do.
        """
        if not self._limit or self._busy or not self._idle:
            return False
        oldest, last = next(iter(self._idle)), next(reversed(self._idle))
        length = self._tree.length(last)
        begins = self._scattered or is_crowded(self._tree.used - length, length)
        if oldest != last and begins and self._move(oldest):
            self._scattered = True
            return True
        if self._scattered and oldest == last:
            self._lower(last, length)
            self._scattered = False
        return False

    def move_out(self, tokens: Sequence[int], start: Start) -> bool:
        """Move the idle texts to host memory, if they crowd a text that is about to run alone. False if none moved.

        The part that this text begins with stays, in the first cells. Texts that cannot be saved stay.
        """
        if not self._limit or self._busy or start.splice is not None:
            return False
        if not self._scattered and not is_crowded(self._tree.used - start.length, len(tokens)):
            return False
        wanted = self._host.find(tokens, start.length, self._backend.context)
        if wanted is not None:
            self._host.used(wanted, wholly=False)  # so that it does not make room for the others
        moved, self._scattered = self._scattered, False
        for sequence in [one for one in self._idle if one != start.source]:
            moved |= self._move(sequence)
        if moved and start.source is not None:
            self._lower(start.source, start.length)
        return moved

    def _move(self, sequence: int) -> bool:
        """Move an idle text to host memory, unless that is impossible."""
        if not self._is_part_of_another(sequence) and not self._copy(sequence):
            return False
        self.drop(sequence)
        return True

    def _copy(self, sequence: int) -> bool:
        """Copy a text to host memory, if its state can be saved, and fits."""
        tokens = self._tree.tokens(sequence)
        exact = self._exact.get(sequence, len(tokens))
        if self._host.covers(tokens, exact):
            return True
        kept = self._save(sequence)
        if kept is None:
            return False
        lengths = {each.length: each for each in kept.checkpoints}
        earliest = max(1, self._backend.earliest(sequence)) if self._backend.cuts_anywhere else len(tokens)
        return self._host.put(HostText(kept, Held(len(tokens), earliest, lengths), exact))

    def _is_part_of_another(self, sequence: int) -> bool:
        """Whether another idle text begins with all cells of this one, and can go back to its length."""
        if not self._backend.cuts_anywhere:
            return False
        length = self._tree.length(sequence)
        others = self._tree.holders(sequence, length - 1, length) - {sequence}
        return any(one in self._idle and self._backend.earliest(one) <= length for one in others)

    def _lower(self, sequence: int, length: int) -> None:
        """Move the first `length` tokens of an idle text to the first free cells. Its rest goes to host memory.

        Where the model cannot cut it, the whole text moves.
        """
        cuts = self._backend.cuts_anywhere and length < self._tree.length(sequence)
        if cuts and not (self._copy(sequence) and self.trim(sequence, length)):
            return
        exact, kept = self._exact.get(sequence), self._save(sequence)
        if kept is None:
            return
        self.drop(sequence)
        self._load(kept, exact)

    def bring_back(self, tokens: Sequence[int], start: Start, reserved: int) -> bool:
        """Load the text of host memory that has more of `tokens` than the planned start, if it is worth it.

        `reserved` cells must stay free for the texts at work.
        """
        if not self._limit or start.splice is not None:
            return False
        text = self._host.find(tokens, start.length, self._backend.context - self.cells_with(None) - reserved)
        if text is None:
            return False
        sequence = self._load(text.kept, text.exact)
        length, cut = text.reach(tokens), False
        if sequence is not None and self._backend.cuts_anywhere and text.held.length - length >= FEW_TOKENS:
            cut = self.trim(sequence, length)
        self._host.used(text, wholly=not cut)
        return sequence is not None
