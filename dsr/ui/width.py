"""The width of text in terminal columns. Cutting never splits a character, even one of several code points: an emoji
with a joiner, a flag, a letter with accents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
