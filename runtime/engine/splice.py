"""Finds the part of a cached text that a new text has at another position. Pure: no model, no cells.

The keys of a cached token depend on its position only through RoPE, so they can be rotated to another one. But keys and
values were computed from the tokens before them. So a moved part is an approximation, as in PIE (arXiv 2407.03157) and
in the context shift and cache reuse of llama.cpp's server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.base.common_prefix import common_length

# A part is found by this many tokens in a row that occur once in the cached text.
_ANCHOR = 16


@dataclass(frozen=True, slots=True)
class Splice:
    """The new text is A + Y + B + C, the cached one A + X + B and perhaps more. A has `prefix` tokens.

    B is at `begin` to `end` of the cached text, and begins at `at` of the new one.
    """

    prefix: int
    at: int
    begin: int
    end: int

    @property
    def moved(self) -> int:
        """The number of tokens of B."""
        return self.end - self.begin


def find_splice(held: Sequence[int], tokens: Sequence[int]) -> Splice | None:
    """The longest common part behind the common prefix; None if none has 16 tokens.

    A part is found if 16 tokens of it in a row occur in the rest of the cached text only once.
    """
    prefix = common_length(held, tokens)
    places: dict[tuple[int, ...], int] = {}
    for start in range(prefix, len(held) - _ANCHOR + 1):
        gram = tuple(held[start : start + _ANCHOR])
        places[gram] = -1 if gram in places else start
    best, start = None, prefix
    while start <= len(tokens) - _ANCHOR:
        place = places.get(tuple(tokens[start : start + _ANCHOR]), -1)
        if place < 0:
            start += 1
            continue
        back = 0
        while min(place, start) - back > prefix and held[place - back - 1] == tokens[start - back - 1]:
            back += 1
        length = common_length(held[place:], tokens, start)
        if best is None or length + back > best.moved:
            best = Splice(prefix, start - back, place - back, place + length)
        start += length
    return best
