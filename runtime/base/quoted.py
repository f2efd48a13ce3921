"""Text that somebody else chose (a file, the engine, another machine), made fit for one line of our own messages."""

from __future__ import annotations

import unicodedata

# Controls, format characters (some reorder a line), surrogates, private and unassigned characters, line breaks.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_LONGEST_NAME = 80


def quoted(text: str, most: int = 240) -> str:
    """One line of at most `most` characters in which nothing is hidden: a line break becomes the two characters \\n.

    A longer text loses its end.
    """
    # Escapes make it longer, never shorter, so the rest of a very long text need not be looked at.
    line = "".join(_visible(character) for character in text.strip()[: most + 1])
    return line if len(line) <= most else line[: most - 1] + "…"


def quoted_name(text: str) -> str:
    """`quoted` for a name or a key: at most 80 characters."""
    return quoted(text, _LONGEST_NAME)


def spelled(value: object) -> str:
    """A value of JSON or bytes as Python spells it, so text stands in quotes: one line, at most about 80 characters."""
    if isinstance(value, int) and value.bit_length() > 200:  # Python writes no integer of thousands of digits
        return "an integer of over 60 digits"
    text = repr(value[: _LONGEST_NAME + 1] if isinstance(value, (str, bytes, list)) else value)
    return text if len(text) <= _LONGEST_NAME + 2 else text[: _LONGEST_NAME + 1] + "…"


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in _HIDDEN
    return character.encode("unicode_escape").decode("ascii") if hidden else character
