"""Markdown divided into blocks while it arrives: paragraphs, list items, tables, code, formulas.

A block that ended never changes. What has not ended is the tail. Every block has a largest size, so that neither a
fence without an end nor a line of a megabyte makes one without bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from runtime.engine.quoted_marks import closes_fence, fence_of

Kind = Literal["text", "table", "code", "formula"]

# Rendering a block takes milliseconds at these sizes. A table needs all of its rows to know its columns.
_LARGEST: dict[Kind, int] = {"text": 8_000, "table": 40_000, "code": 16_000, "formula": 4_000}
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])(?:\s|$)")
_HEADING = re.compile(r" {0,3}#{1,6}(?:\s|$)")
_RULE_OF_TABLE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)+\|?\s*|\s*\|\s*:?-+:?\s*\|\s*")
_ENDS = {"$$": "$$", "\\[": "\\]"}


@dataclass(frozen=True, slots=True)
class Block:
    """`text` without its last line break. `language` of code. `gap`: an empty line stands before it."""

    kind: Kind
    text: str
    gap: bool
    language: str = ""


class BlockSplitter:
    """Takes a text in pieces. The blocks do not depend on how it is cut."""

    def __init__(self) -> None:
        self._line = ""  # without its end so far
        self._lines: list[str] = []  # of the open block
        self._size = 0
        self._kind: Kind = "text"
        self._fence = ""  # that opened the block of code, or the block of code inside of a list item
        self._closes = ""  # the mark that ends a formula
        self._language = ""
        self._gap = False  # before the open block
        self._blank = False  # an empty line came, and may have ended the block
        self._done: list[Block] = []

    def feed(self, text: str) -> list[Block]:
        """Takes more text; returns the blocks that ended."""
        *ended, rest = text.split("\n")
        for piece in ended:
            self._grow(piece)
            line, self._line = self._line, ""
            self._take(line)
        self._grow(rest)
        done, self._done = self._done, []
        return done

    def finish(self) -> list[Block]:
        """Returns the last block, at the end of the text. The next text begins a new one."""
        if self._line:
            line, self._line = self._line, ""
            self._take(line)
        self._close()
        done = self._done
        self.__init__()  # type: ignore[misc]
        return done

    @property
    def tail(self) -> Block | None:
        """The block that has not ended, as it is now."""
        lines = [*self._lines, self._line] if self._line else self._lines
        if not lines or not (self._kind == "code" or any(map(str.strip, lines))):
            return None
        return Block(self._kind, "\n".join(lines), self._gap, self._language)

    def _grow(self, piece: str) -> None:
        """Adds to the line that has not ended. A line longer than a block is cut, between words if possible."""
        self._line += piece
        if self._line.strip():
            self._after_blank(self._line)
        most = _LARGEST[self._kind if self._kind != "table" else "text"]
        while len(self._line) > most:
            at = self._line.rfind(" ", most // 2, most) + 1 or most
            piece, self._line = self._line[:at], self._line[at:]
            self._add(piece)
            self._cut()

    def _take(self, line: str) -> None:
        if self._kind == "code":
            self._take_code(line)
        elif self._kind == "formula":
            self._add(line)
            if self._closes in line:
                self._close()
        elif self._fence:  # inside of a list item
            self._add(line)
            self._fence = "" if closes_fence(line.lstrip(), self._fence) else self._fence
        elif not line.strip():
            self._blank = True
        else:
            self._after_blank(line)
            self._take_text(line)

    def _take_code(self, line: str) -> None:
        if closes_fence(line, self._fence):
            self._close(code=True)
            self._fence = ""
        else:
            self._add(line)

    def _take_text(self, line: str) -> None:
        inside = bool(self._lines) and _ITEM.match(self._lines[0]) is not None and line.startswith("  ")
        fence = fence_of(line.lstrip() if inside else line)
        if fence and inside:
            self._fence = fence
        elif fence:
            self._open("code")
            self._fence = fence
            self._language = line.strip().lstrip(fence[0]).strip().partition(" ")[0]
            return
        elif not inside and line.lstrip()[:2] in _ENDS and not line.startswith("    "):
            self._open("formula")
            self._closes = _ENDS[line.lstrip()[:2]]
            self._add(line)
            if self._closes in line.lstrip()[2:]:
                self._close()
            return
        elif _HEADING.match(line) or (_ITEM.match(line) and not inside):
            self._open("text")
        elif self._kind == "table" and "|" not in line:
            self._open("text")  # GFM takes it for a row; models mean a sentence whose empty line they forgot
        if self._kind == "text" and len(self._lines) == 1 and "|" in self._lines[0] and _RULE_OF_TABLE.fullmatch(line):
            self._kind = "table"
        self._add(line)
        if _HEADING.match(line):
            self._close()

    def _after_blank(self, line: str) -> None:
        """Decides whether the line after an empty one still belongs to the block: only to that of a list item."""
        if not self._blank or self._kind in ("code", "formula") or self._fence:
            return
        if self._lines and _ITEM.match(self._lines[0]) and line.startswith("  "):
            self._lines.append("")
        else:
            self._open("text")
            self._gap = True
        self._blank = False

    def _open(self, kind: Kind) -> None:
        self._close()
        self._kind = kind
        self._gap = self._gap or self._blank or kind != "text"
        self._blank = False

    def _add(self, line: str) -> None:
        if self._size + len(line) > _LARGEST[self._kind] and self._lines:
            self._cut()
        self._lines.append(line)
        self._size += len(line) + 1

    def _cut(self) -> None:
        """Ends a block that is too long; it goes on in the next one. A formula without an end is text."""
        kind = "text" if self._kind in ("formula", "table") else self._kind
        language = self._language
        self._close(code=kind == "code")
        self._kind, self._language = kind, language

    def _close(self, *, code: bool = False) -> None:
        if any(map(str.strip, self._lines)) or (code and self._lines):
            block = Block(self._kind, "\n".join(self._lines), self._gap, self._language)
            self._done.append(block if block.kind != "formula" else replace(block, text=block.text.strip()))
            self._gap = block.kind in ("code", "formula", "table")
        self._lines, self._size, self._kind, self._language, self._closes = [], 0, "text", "", ""
