"""JSON that arrives piece by piece: where a value ends, and whether it is valid so far.

How a stream is cut into pieces never changes the result.
"""

from __future__ import annotations

import json
import re

_MOST_DEPTH = 200  # no tool needs more, and readers of JSON recurse
_STRING = re.compile(r'[^"\\\x00-\x1f]+')
_SPACE = re.compile(r"[ \t\r\n]+")
_WORD = re.compile(r"[-+.\w]+")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_HEX = frozenset("0123456789abcdefABCDEF")
_SHORT_ESCAPES = frozenset('"\\/bfnrt')
_PYTHON = {"True": "true", "False": "false", "None": "null"}


class JsonStream:
    """One JSON value. `feed` says how much of a text it took; then `done`, `broken`, or it wants more.

    What it takes for valid is what models write: a line end inside of a string is escaped, a backslash that escapes
    nothing is doubled, and Python's True, False and None are words of JSON. `text` is the valid beginning of the value.
    """

    def __init__(self) -> None:
        self.done = self.broken = False
        self._out: list[str] = []
        self._taken = 0  # how many of `_out` were taken
        self._stack: list[str] = []
        self._expect = "value"
        self._string = False
        self._escape = ""  # an escape that is not complete
        self._word = ""  # a number or a word that is not complete

    @property
    def text(self) -> str:
        return "".join(self._out)

    def take(self) -> str:
        """The text that was added since the last call."""
        fresh = "".join(self._out[self._taken :])
        self._taken = len(self._out)
        return fresh

    def feed(self, text: str, at: int = 0) -> int:
        """Read `text` from `at` on; the place at which the value ended or broke, or the end of the text."""
        while at < len(text) and not self.done and not self.broken:
            at = self._in_string(text, at) if self._string else self._outside(text, at)
        return at

    def finish(self) -> None:
        """No more text comes: a number may be complete."""
        if self._word:
            self._end_word()
        if not self.done:
            self.broken = True

    def _in_string(self, text: str, at: int) -> int:
        if self._escape:
            return self._escaped(text[at], at)
        run = _STRING.match(text, at)
        if run is not None:
            self._out.append(run[0])
            return run.end()
        character = text[at]
        if character == "\\":
            self._escape = "\\"
        elif character == '"':
            self._out.append('"')
            self._string = False
            self._after_string()
        else:
            self._out.append(json.dumps(character)[1:-1])
        return at + 1

    def _escaped(self, character: str, at: int) -> int:
        if self._escape == "\\":
            if character == "u":
                self._escape = "\\u"
            elif character in _SHORT_ESCAPES:
                self._out.append("\\" + character)
                self._escape = ""
            else:
                self._out.append("\\\\")
                self._escape = ""
                return at  # the character stands for itself
            return at + 1
        if character not in _HEX:
            self._out.append("\\" + self._escape)
            self._escape = ""
            return at
        self._escape += character
        if len(self._escape) == 6:
            self._out.append(self._escape)
            self._escape = ""
        return at + 1

    def _outside(self, text: str, at: int) -> int:
        word = _WORD.match(text, at)
        if word is not None and (self._word or self._expect in ("value", "value or ]")):
            self._word += word[0]
            if len(self._word) > 400:
                self.broken = True
            return word.end()
        if self._word:
            self._end_word()
            return at
        space = _SPACE.match(text, at)
        if space is not None:
            self._out.append(space[0])
            return space.end()
        if self._takes(text[at]):
            self._out.append(text[at])
            if not self._stack and not self._string:
                self.done = True
            return at + 1
        self.broken = True
        return at

    def _takes(self, character: str) -> bool:
        """Whether a mark may stand here; then the state is that after it."""
        expect = self._expect
        if character == '"' and expect in ("value", "value or ]", "key", "key or }"):
            self._string = True
            return True
        if character in "{[" and expect in ("value", "value or ]"):
            self._stack.append("}" if character == "{" else "]")
            self._expect = "key or }" if character == "{" else "value or ]"
            return len(self._stack) <= _MOST_DEPTH
        if character == ":" and expect == "colon":
            self._expect = "value"
            return True
        if character == "," and expect == "comma":
            self._expect = "key" if self._stack[-1] == "}" else "value"
            return True
        if (
            self._stack
            and character == self._stack[-1]
            and expect in ("comma", f"key or {character}", f"value or {character}")
        ):
            self._stack.pop()
            self._expect = "comma"
            return True
        return False

    def _after_string(self) -> None:
        if self._expect in ("key", "key or }"):
            self._expect = "colon"
        else:
            self._after_value()

    def _after_value(self) -> None:
        self._expect = "comma"
        self.done = not self._stack

    def _end_word(self) -> None:
        word, self._word = _PYTHON.get(self._word, self._word), ""
        if word in ("true", "false", "null") or _NUMBER.fullmatch(word):
            self._out.append(word)
            self._after_value()
        else:
            self.broken = True


def object_within(text: str) -> tuple[str, bool]:
    """The valid beginning of an object that a JSON text holds as text, and whether that is a whole object."""
    within = JsonStream()
    within.feed(text)
    return within.text, within.done and text.lstrip().startswith("{")
