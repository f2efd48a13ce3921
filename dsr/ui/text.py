"""Text in terminal columns: its width, cut to a width, wrapped while it arrives.

Cutting never splits a character, even one of several code points: an emoji with a joiner, a flag, a letter with
accents.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from runtime.engine.quoted_marks import closes_fence, fence_of

_MISSING = "…"


def display_width(text: str) -> int:
    """Returns the columns of one line of text: 2 for an emoji and an East Asian wide character, 0 for an accent."""
    if text.isascii():
        return len(text)
    from wcwidth import width

    # Every terminal counts the same: the environment does not matter, ambiguous characters (Greek, box lines) are
    # narrow, control characters take no column.
    return width(text, control_codes="ignore", tabsize=8, ambiguous_width=1, term_program=False)


def one_character(text: str) -> bool:
    """Whether a reader sees all of `text` as one character (an extended grapheme cluster of Unicode annex 29)."""
    if text.isascii():
        return len(text) == 1
    from wcwidth import iter_graphemes

    return next(iter_graphemes(text)) == text


def wrap_words(text: str, columns: int, *, hang: int = 0) -> list[str]:
    """Returns the lines of `text`, broken between words only; all but the first begin with `hang` spaces."""
    from wcwidth import wrap

    return wrap(
        text,
        columns,
        control_codes="ignore",
        tabsize=4,
        ambiguous_width=1,
        term_program=False,
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
        propagate_sgr=False,
    )


def align(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Returns a line for each row. A column is as wide as its widest cell; `right` has the columns to align right."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]

    def padded(column: int, cell: str) -> str:
        space = " " * (widths[column] - display_width(cell))
        return space + cell if column in right else cell + space

    return ["  ".join(padded(column, cell) for column, cell in enumerate(row)).rstrip() for row in rows]


def truncate(text: str, columns: int) -> str:
    """Returns the start of `text` in at most `columns`, with "…" for a missing rest."""
    if display_width(text) <= columns:
        return text
    return _start(text, columns - 1).rstrip() + _MISSING if columns > 0 else ""


def truncate_start(text: str, columns: int) -> str:
    """Returns the end of `text` in at most `columns`, with "…" for a missing start."""
    if display_width(text) <= columns:
        return text
    return _MISSING + _end(text, columns - 1) if columns > 0 else ""


def truncate_middle(text: str, columns: int) -> str:
    """Returns `text` in at most `columns`, with "…" for a missing middle: the names of shards differ at their end."""
    if display_width(text) <= columns:
        return text
    end = (columns - 1) * 2 // 3
    return _start(text, columns - 1 - end) + _MISSING + _end(text, end) if columns > 0 else ""


def _start(text: str, columns: int) -> str:
    from wcwidth import iter_graphemes

    return "".join(_fitting(iter_graphemes(text), columns))


def _end(text: str, columns: int) -> str:
    from wcwidth import iter_graphemes_reverse

    return "".join(reversed(tuple(_fitting(iter_graphemes_reverse(text), columns))))


def _fitting(characters: Iterable[str], columns: int) -> Iterator[str]:
    """Yields characters as long as they fit."""
    for character in characters:
        columns -= display_width(character)
        if columns < 0:
            return
        yield character


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
        if not self._fence:
            self._fence = fence_of(self._line)
        elif closes_fence(self._line, self._fence):
            self._fence = ""
        self._line = self._character = ""
        self._column = 0


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters without white space between them."""
    if after in _NOT_FIRST or before in _NOT_LAST or display_width(after) == 0:
        return False
    return display_width(before) == 2 or display_width(after) == 2
