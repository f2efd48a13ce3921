"""Small filters over a stream of text: stop strings, bytes that become characters, and seams of removed marks.

How a stream is cut into pieces never changes the result.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence


class StopStrings:
    """Ends a stream before the first stop string; what may become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.met = ""  # the stop string that ended the stream

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is certain by now, and whether a stop string was met. After it nothing comes."""
        if self.met:
            return "", True
        if not self._stops:
            return text, False
        text = self._held + text
        self._held = ""
        # The one that is complete first ends the stream; of those complete at once, the longest.
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            end, at = min(found)
            self.met = text[at:end]
            return text[:at], True
        kept = tail_that_may_become(self._stops, text)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept], False

    def finish(self) -> str:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        return held


class UTF8Pieces:
    """Bytes of tokens -> text, never a part of a character. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """The remains of a character that never became whole."""
        return self._decoder.decode(b"", final=True)

    @property
    def at_boundary(self) -> bool:
        """Whether no character is half there."""
        return not self._decoder.getstate()[0]


class SeamGuard:
    """Passes one part's text on, less the characters that would complete a mark across a seam."""

    def __init__(self, tags: Iterable[str]) -> None:
        self._tags = tuple(tags)
        self._starts = frozenset(tag[0] for tag in self._tags)
        self._tail = ""  # the end of what was passed on, as far as it may become a mark
        self.wrote = False
        self.ends_in_space = True

    def pass_on(self, text: str, *, whole: bool) -> str:
        """`whole`: the text is a mark that stands for itself."""
        if whole:
            self._tail = ""
        nothing_begins = not self._tail and self._starts.isdisjoint(text)
        passed = text if whole or nothing_begins else self._guarded(self._tail + text)
        if passed:
            self.wrote = True
            self.ends_in_space = passed[-1].isspace()
        return passed

    def _guarded(self, whole: str) -> str:
        # What comes first completed is what the reader would see first.
        while ends := [at + len(tag) for tag in self._tags if (at := whole.find(tag)) >= 0]:
            whole = whole[: min(ends) - 1] + whole[min(ends) :]
        passed = whole[len(self._tail) :]
        kept = tail_that_may_become(self._tags, whole)
        self._tail = whole[len(whole) - kept :]
        return passed


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """What matches each of the texts, and nothing if there is none."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def first_of(tags: Sequence[str], text: str) -> tuple[int, str] | None:
    """The first tag in the text and where it begins."""
    found = [(at, tag) for tag in tags if (at := text.find(tag)) >= 0]
    return min(found) if found else None


def tail_that_may_become(tags: Sequence[str], text: str) -> int:
    """How many characters at the end of a text are the beginning of a tag, at most."""
    longest = 0
    for tag in tags:
        start = text.find(tag[0], max(0, len(text) - len(tag) + 1))
        while start >= 0 and len(text) - start > longest:
            if tag.startswith(text[start:]):
                longest = len(text) - start
                break
            start = text.find(tag[0], start + 1)
    return longest
