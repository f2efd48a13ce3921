"""Breaking lines between words while the text still arrives. Pure: text in, the same text with line breaks out."""

from __future__ import annotations

from collections.abc import Callable

from dsr.ui.console import display_width
from runtime.engine.thinking import fence_of

_TAB = 8
_JOINER = "\u200d"  # makes one emoji of several
# What must not begin a line, and what must not end one (the commonest of JIS X 4051 and GB/T 15834).
_NOT_FIRST = frozenset("、。，．：；？！）」』】〉》〕｝］…ー々〜”’")
_NOT_LAST = frozenset("（「『【〈《〔｛［“‘")


class WordWrap:
    """Holds back a word until it is whole or as long as a line. `width` in columns is asked anew for every word.

    Only line breaks are added, and nothing else is changed: white space stays where it is. No line is longer than the
    width, except for a single word that is. Between East Asian wide characters a line may break without a space. Lines
    of a fenced code block (CommonMark 4.5) are never touched. How the text is cut into pieces never matters.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0
        self._word = ""  # held back
        self._overlong = ""  # the last character of a word as long as a line, which is passed on as it comes
        self._line = ""  # of the original text
        self._fence = ""  # what opened the code block we are in

    def feed(self, text: str) -> str:
        """Take more text; what can be shown by now."""
        return "".join(map(self._take, text))

    def finish(self) -> str:
        """What was held back, now that nothing more comes. The next text begins a line of its own."""
        last = self._release()
        self._column, self._line, self._fence = 0, "", ""
        return last

    def _take(self, character: str) -> str:
        if character == "\n":
            out = self._release() + character
            self._end_line()
            return out
        self._line += character
        if self._fence:
            return character
        if character in " \t":
            after_overlong = self._overlong != ""
            return self._release() + self._space(character, after_overlong)
        out = ""
        before = self._word[-1:] or self._overlong
        if before and _may_break(before, character):
            out = self._release()
        if self._overlong:
            self._overlong = character
            return out + character
        self._word += character
        if display_width(self._word) >= self._width():
            out += self._release()
            self._overlong = character
        return out

    def _release(self) -> str:
        word, self._word, self._overlong = self._word, "", ""
        width = display_width(word)
        # One column stays free for the space after the word.
        if not word or self._column + width < self._width() or not self._column:
            self._column += width
            return word
        self._column = width
        return "\n" + word

    def _space(self, character: str, after_overlong: bool) -> str:
        width = _TAB - self._column % _TAB if character == "\t" else 1
        if after_overlong or self._column + width <= self._width():
            self._column += width
            return character
        self._column = _TAB if character == "\t" else 1
        return "\n" + character

    def _end_line(self) -> None:
        run = fence_of(self._line)
        if not self._fence:
            self._fence = run
        elif run.startswith(self._fence) and self._line.strip() == run:
            self._fence = ""
        self._line = ""
        self._column = 0


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters that no white space separates."""
    if after in _NOT_FIRST or before in _NOT_LAST or before == _JOINER or display_width(after) == 0:
        return False
    return display_width(before) == 2 or display_width(after) == 2
