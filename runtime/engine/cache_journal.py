"""A record of what a KV cache holds, from which the cache of another backend can be filled."""

from __future__ import annotations

from typing import Protocol

from runtime.base.common_prefix import common_length
from runtime.engine.backend import Batch


class Cache(Protocol):
    """The part of `Backend` that fills a cache."""

    @property
    def batch_size(self) -> int: ...
    def decode(self, batch: Batch) -> None: ...
    def fork(self, source: int, target: int) -> None: ...
    def trim(self, slot: int, length: int) -> bool: ...


class CacheJournal:
    """The tokens of each slot before the last batch; that batch; what was forked, trimmed and restored after it.

    The last batch is kept separately because its logits may still be needed.
    """

    def __init__(self) -> None:
        self._before: dict[int, list[int]] = {}
        self._last: Batch | None = None
        self._after: list[tuple[str, int, int]] = []

    def decoded(self, batch: Batch) -> None:
        self._before = self._held()
        self._last, self._after = batch, []

    def forked(self, source: int, target: int) -> None:
        self._after.append(("fork", source, target))

    def trimmed(self, slot: int, length: int) -> None:
        self._after.append(("trim", slot, length))

    def _held(self) -> dict[int, list[int]]:
        held = self._with_last()
        for action in self._after:
            _follow(held, action)
        return {slot: tokens for slot, tokens in held.items() if tokens}

    def _with_last(self) -> dict[int, list[int]]:
        held = {slot: list(tokens) for slot, tokens in self._before.items()}
        if self._last is not None:
            for token, position, slot in zip(self._last.tokens, self._last.positions, self._last.slots, strict=True):
                held[slot] = [*held.get(slot, [])[:position], token]
        return held

    def restore(self, cache: Cache) -> None:
        """Fill an empty `cache` with the recorded tokens; tokens that slots have in common are decoded once."""
        done: dict[int, list[int]] = {}
        # The shortest first: the longer ones may have been forked from it, and some models only fork a whole text.
        for slot, tokens in sorted(self._before.items(), key=lambda item: len(item[1])):
            _read(cache, slot, tokens, self._fork_nearest(cache, done, slot, tokens))
            done[slot] = tokens
        if self._last is not None:
            cache.decode(self._last)
        held = self._with_last()
        for action in self._after:
            _follow(held, action)
            kind, slot, other = action
            if kind == "fork":
                cache.fork(slot, other)
            elif not cache.trim(slot, other):
                # A checkpoint brought it back. After that, nobody needs the logits of the last batch.
                cache.trim(slot, 0)
                _read(cache, slot, held[slot], 0)

    def _fork_nearest(self, cache: Cache, done: dict[int, list[int]], slot: int, tokens: list[int]) -> int:
        """Fork from the slot with the longest common beginning; returns how many of `tokens` are cached then."""
        common = {other: common_length(held, tokens) for other, held in done.items()}
        source = max(common, key=lambda other: common[other], default=None)
        if source is None or not common[source]:
            return 0
        cache.fork(source, slot)
        if common[source] == len(done[source]) or cache.trim(slot, common[source]):
            return common[source]
        cache.trim(slot, 0)
        return 0


def _follow(held: dict[int, list[int]], action: tuple[str, int, int]) -> None:
    kind, slot, other = action
    if kind == "fork":
        held[other] = list(held.get(slot, []))
    else:
        held[slot] = held.get(slot, [])[:other]


def _read(cache: Cache, slot: int, tokens: list[int], held: int) -> None:
    """Decode the tokens that a slot does not hold yet."""
    while held < len(tokens):
        batch = Batch()
        batch.add(tokens[held : held + cache.batch_size], held, slot, output=False)
        cache.decode(batch)
        held += len(batch.tokens)
