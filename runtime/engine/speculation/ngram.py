"""Drafts from the text itself: what followed the last time the same tokens were written."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.engine.speculation.draft_controller import LONGEST_DRAFT
from runtime.engine.speculation.drafter import Acceptance, Worth

_SHORTEST = 3  # tokens that must have been written before
_LONGEST = 16  # a longer match says no more than one of this length
_CANDIDATES = 16  # earlier places to look at, the latest first


class NgramDrafter:
    """Finds the longest earlier match of the last tokens, the latest of equally long ones, and copies what followed.

    The index is that of deflate's hash chains (RFC 1951, section 4): each three tokens lead to the place where they
    were last written, and each place to the one before. A new token costs a dictionary entry, a guess a short walk.
    """

    kind = "ngram"

    def __init__(self) -> None:
        # Any text repeats a few tokens by chance, but hardly ever six: about even for three, 19 of 20 for twelve.
        self._acceptance = Acceptance([length**2 / (length**2 + 8) for length in range(_LONGEST + 1)])
        self.begin(())

    def begin(self, tokens: Sequence[int]) -> None:
        self._text: list[int] = []
        self._latest: dict[tuple[int, int, int], int] = {}
        self._earlier: list[int] = [0]
        self._guess: list[int] = []
        self._evidence = 0
        self.follow(tokens)

    def follow(self, tokens: Sequence[int]) -> None:
        self._acceptance.judge(self._evidence, self._guess, tokens)
        self._guess = []
        text, latest, earlier = self._text, self._latest, self._earlier
        for token in tokens:
            text.append(token)
            end = len(text)
            key = (text[end - 3], text[end - 2], token) if end >= _SHORTEST else None
            earlier.append(latest.get(key, 0) if key else 0)
            if key:
                latest[key] = end

    def propose(self, most: int, worth: Worth) -> list[int]:
        place, self._evidence = self._longest_match()
        if not place:
            return []
        end = len(self._text)
        # A match that overlaps the end of the text goes round: what was copied is copied again.
        self._guess = [self._text[place + index % (end - place)] for index in range(LONGEST_DRAFT)]
        # A guess that is not checked is judged, too, by the token that comes: so learning costs nothing.
        return self._guess[: worth(self._acceptance.chances(self._evidence, min(most, LONGEST_DRAFT)))]

    def learn(self) -> None:
        """It does all the time."""

    def _longest_match(self) -> tuple[int, int]:
        """Where the text went on after the longest match, and the length of that; (0, 0) without a match."""
        text, end = self._text, len(self._text)
        place, best, found = self._earlier[end], 0, 0
        for _ in range(_CANDIDATES):
            if not place or best == _LONGEST:
                break
            length = _SHORTEST
            while length < _LONGEST and length < place and text[place - 1 - length] == text[end - 1 - length]:
                length += 1
            if length > best:
                best, found = length, place
            place = self._earlier[place]
        return found, best
