"""Breaks lines between words while the text still arrives: text in, the same text with line breaks out."""

from __future__ import annotations

from collections.abc import Callable

from dsr.ui.width import display_width, one_character
from runtime.engine.thinking import fence_of

_TAB = 8
# Characters that must not begin a line, and that must not end one (the most common of JIS X 4051 and GB/T 15834).
_NOT_FIRST = frozenset("、。，．：；？！）」』】〉》〕｝］…ー々〜”’")
_NOT_LAST = frozenset("（「『【〈《〔｛［“‘")


class WordWrap:
    """Holds back a word until it is complete or as long as a line. `width` returns the columns, for each word again.

    It adds line breaks and changes nothing else: white space stays where it is. No line is longer than the width,
    except for a single longer word. Between East Asian wide characters and emoji a line may break without a space,
    inside a character of several code points never. Lines of a fenced code block (CommonMark 4.5) stay as they are.
    The result does not depend on how the text is cut into pieces.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0
        self._character = ""  # the last one that a reader sees: one or more code points
        self._word = ""  # held back
        self._overlong = False  # inside a word as long as a line, which is passed on as it comes
        self._line = ""  # of the original text
        self._fence = ""  # the run that opened the code block

    def feed(self, text: str) -> str:
        """Takes more text; returns the text that can be shown by now."""
        return "".join(map(self._take, text))

    def finish(self) -> str:
        """Returns the text that was held back, at the end of the input. The next text begins a new line."""
        rest = self._release()
        self._column, self._character, self._line, self._fence = 0, "", "", ""
        return rest

    def _take(self, code_point: str) -> str:
        if code_point == "\n":
            out = self._release() + code_point
            self._end_line()
            return out
        self._line += code_point
        before = self._character
        continues = before != "" and one_character(before + code_point)
        self._character = before + code_point if continues else code_point
        if self._fence:
            return code_point
        if continues:
            return self._add(code_point) if self._word else code_point
        if code_point in " \t":
            after_overlong = self._overlong
            return self._release() + self._space(code_point, after_overlong)
        out = self._release() if before and _may_break(before, code_point) else ""
        return out + self._add(code_point)

    def _add(self, code_point: str) -> str:
        if self._overlong:
            return code_point
        self._word += code_point
        if display_width(self._word) < self._width():
            return ""
        word = self._release()
        self._overlong = True
        return word

    def _release(self) -> str:
        word, self._word, self._overlong = self._word, "", False
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
        self._line = self._character = ""
        self._column = 0


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters without white space between them."""
    if after in _NOT_FIRST or before in _NOT_LAST or display_width(after) == 0:
        return False
    return display_width(before) == 2 or display_width(after) == 2
