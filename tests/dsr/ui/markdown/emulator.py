"""A small terminal: the characters on its screen, and those that scrolled out of it."""

from __future__ import annotations

import re

from dsr.ui.text import display_width

_PART = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])|(.)", re.DOTALL)


class Terminal:
    """Knows what `MarkdownStream` and the conversation write; anything else is an error.

    Wraps as an xterm does, at the next character.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.gone: list[str] = []
        self._screen = [[" "] * columns]
        self._row = self._column = 0

    @property
    def screen(self) -> list[str]:
        return ["".join(line).rstrip() for line in self._screen]

    @property
    def text(self) -> list[str]:
        """Everything, as a person reads it who scrolls up."""
        return [*self.gone, *self.screen]

    def write(self, text: str) -> None:
        for found in _PART.finditer(text):
            number, command, character = found.groups()
            if character is not None:
                self._put(character)
            elif command == "A":
                self._row -= int(number or 1)
                assert self._row >= 0, "the cursor would leave the screen"
            elif command in "CD":
                moved = self._column + int(number or 1) * (1 if command == "C" else -1)
                self._column = min(max(moved, 0), self.columns - 1)
            elif command == "K":
                self._screen[self._row][self._column :] = [" "] * (self.columns - self._column)
            elif command == "J":
                self._screen[self._row][self._column :] = [" "] * (self.columns - self._column)
                del self._screen[self._row + 1 :]
            else:
                assert command in "mhl", f"an unknown command: {found[0]!r}"

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._column = 0
            self._down()
        else:
            assert character.isprintable(), f"{character!r} reaches the terminal"
            width = display_width(character)
            if self._column + width > self.columns:
                self._column = 0
                self._down()
            self._screen[self._row][self._column : self._column + width] = [character, *[""] * (width - 1)]
            self._column += width

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._screen):
            self._screen.append([" "] * self.columns)
        if len(self._screen) > self.rows:
            self.gone.append("".join(self._screen.pop(0)).rstrip())
            self._row -= 1
