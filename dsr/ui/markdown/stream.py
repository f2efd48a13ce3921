"""A streaming answer at a terminal: blocks that ended are final, the tail is drawn again until it ends.

Everything that can still change stands in the last rows of the screen, so that the text above can be scrolled and
copied while the answer grows. One write brings the screen from one state to the next, and only lines that changed are
written: nothing flickers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import takewhile

from dsr.ui.markdown.blocks import Block, BlockSplitter
from dsr.ui.markdown.render import Renderer
from dsr.ui.text import display_width, truncate

# The tail is drawn as often as a person can follow, and never for more than a fifth of the time.
_SECONDS_BETWEEN = 0.05
_REST = 4
# Rows of the tail that may still change. Lines above them are final even in a block that has not ended.
_MOST_ROWS = 12
# ECMA-48, and the mode in which a terminal shows nothing until the end of an update (ignored where it is unknown).
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_TO_LINE_END, _TO_SCREEN_END = "\x1b[K", "\x1b[J"


def rendered(text: str, columns: int, *, styled: bool) -> str:
    """A whole text in lines for a terminal, without a line break at the end."""
    splitter, renderer, lines = BlockSplitter(), Renderer(styled=styled), list[str]()
    for block in (*splitter.feed(text), *splitter.finish()):
        lines += [""] if block.gap and lines else []
        lines += renderer.lines(block, columns - 1)
    return "\n".join(lines)


class MarkdownStream:
    """Returns text with escape codes for a terminal, to be written as it is. `size` returns its columns and rows."""

    def __init__(
        self, size: Callable[[], tuple[int, int]], *, styled: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._size = size
        self._now = now
        self._renderer = Renderer(styled=styled)
        self._splitter = BlockSplitter()
        self._shown: list[str] = []  # the rows that can change; the cursor is at the end of the last one
        self._final = 0  # lines of the tail that are above them
        self._begun = False  # something is above the tail
        self._next = 0.0  # the earliest time of the next drawing

    def feed(self, text: str) -> str:
        """Takes more text; returns what to write now, which may be nothing."""
        done = self._splitter.feed(text)
        if not done and self._now() < self._next:
            return ""
        start = self._now()
        out = self._draw(done, self._splitter.tail)
        end = self._now()
        self._next = end + max(_SECONDS_BETWEEN, _REST * (end - start))
        return out

    def finish(self) -> str:
        """Ends the text: all of it becomes final, and the cursor goes to a new line."""
        out = self._draw(self._splitter.finish(), None)
        self._begun, self._next = False, 0.0
        return out

    def _draw(self, done: list[Block], tail: Block | None) -> str:
        columns, rows = self._size()
        final: list[str] = []
        for block in done:
            final += self._lines(block, columns)[self._final :]
            self._final, self._begun = 0, True
        lines = self._lines(tail, columns)[self._final :] if tail is not None else []
        most = max(1, min(_MOST_ROWS, rows - 2))
        # The columns of a table change with every row: nothing of it is final before its end.
        if tail is not None and tail.kind != "table" and len(lines) > most:
            final += lines[:-most]
            self._final += len(lines) - most
        live = [line if _fits(line, columns) else truncate(_plain(line), columns - 1) for line in lines[-most:]]
        return self._write(final, live, columns)

    def _lines(self, block: Block, columns: int) -> list[str]:
        gap = [""] if block.gap and self._begun else []
        return gap + self._renderer.lines(block, columns - 1)

    def _write(self, final: list[str], live: list[str], columns: int) -> str:
        """Replaces the rows that can change by final lines and new rows."""
        lines, shown = [*final, *live], self._shown
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(lines, shown, strict=False)))
        self._shown = live
        if same == len(lines) == len(shown) and not final:
            return ""
        out = ""
        if shown:
            same = max(0, min(same, len(shown) - 1, len(lines) - 1))  # the last line is written: the cursor ends there
            # A narrower window has wrapped the rows.
            up = sum(_rows(line, columns) for line in shown[same:]) - 1
            out += (f"\x1b[{up}A" if up else "") + "\r"
        else:
            same = 0
        rest = lines[same:]
        out += "\n".join(line + ("" if _fills_rows(line, columns) else _TO_LINE_END) for line in rest)
        if len(shown) > len(lines):
            out += _TO_SCREEN_END
        if not live and lines:
            out += "\n"
        return f"{_BEGIN}{out}{_END}" if out else ""


def _rows(line: str, columns: int) -> int:
    return max(1, -(-display_width(_plain(line)) // columns))


def _fills_rows(line: str, columns: int) -> bool:
    """Whether the line ends in the last column. What a terminal erases there is the line's last character."""
    return not _fits(line, columns) and display_width(_plain(line)) % columns == 0


def _fits(line: str, columns: int) -> bool:
    return len(line) < columns or display_width(_plain(line)) < columns


def _plain(line: str) -> str:
    """The line without the escape codes of its styles."""
    if "\x1b" not in line:
        return line
    from wcwidth import strip_sequences

    return strip_sequences(line)
