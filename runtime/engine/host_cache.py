"""Texts that left the KV cache for host memory, from where they come back instead of being read again.

Attention covers all cells up to the highest used one (llama_kv_cache::get_n_kv in src/llama-kv-cache.cpp), so each idle
text slows down the texts that draw. llama-server moves them as well: `--cache-idle-slots`, server_prompt_cache in
tools/server/server-task.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.base.common_prefix import common_length
from runtime.engine.kept_state import KeptState
from runtime.engine.prefix_plan import FEW_TOKENS, Held

# A state is loaded whole, so a small use of a large one is not worth it. Per token, loading takes about a hundredth of
# the time of reading on a CPU, and up to half of it on a large GPU.
_LEAST_SHARE = 1 / 8


@dataclass(frozen=True, slots=True, eq=False)
class HostText:
    """A text with its state. `held`: to which lengths it can go back once it is loaded. Tokens from `exact` on were
    computed approximately.
    """

    kept: KeptState
    held: Held
    exact: int

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.kept.state) + sum(each.size for each in self.kept.checkpoints)

    def reach(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` it has, exactly, in a length to which it can go back."""
        return self.held.reach(min(common_length(self.kept.tokens, tokens), self.exact))[0]

    def stands_for(self, other: HostText) -> bool:
        """Whether the other text is needless where this one is kept."""
        return self.reach(other.kept.tokens) == other.held.length


class HostCache:
    """The texts of a cache that is crowded, at most `limit` bytes. The least recently used one goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._texts: list[HostText] = []  # the least recently used first

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(each.size for each in self._texts)

    @property
    def tokens(self) -> int:
        return sum(each.held.length for each in self._texts)

    def covers(self, tokens: Sequence[int], exact: int) -> bool:
        """Whether a text would be needless here: its tokens, `exact` of them exactly, came with another one."""
        return exact == len(tokens) and any(each.reach(tokens) == exact for each in self._texts)

    def put(self, text: HostText) -> bool:
        """Keep a text, without those that it makes needless. False if it is larger than the limit."""
        if text.size > self._limit:
            return False
        self._texts = [each for each in self._texts if not text.stands_for(each)]
        room = self._limit - text.size
        while self.size > room:
            del self._texts[0]
        self._texts.append(text)
        return True

    def find(self, tokens: Sequence[int], known: int, most: int) -> HostText | None:
        """The text that has the most of `tokens`, if loading it is worth it where `known` of them are in the cache.

        Texts of more than `most` tokens do not count.
        """
        best, reached = None, known
        for each in self._texts:
            length = each.reach(tokens) if each.held.length <= most else 0
            if length > reached and length - known >= max(FEW_TOKENS, each.held.length * _LEAST_SHARE):
                best, reached = each, length
        return best

    def used(self, text: HostText, *, wholly: bool) -> None:
        """A text is in the cache again: `wholly`, or its beginning alone, so that its rest is still needed here."""
        self._texts.remove(text)
        if not wholly:
            self._texts.append(text)

    def clear(self) -> None:
        self._texts.clear()
