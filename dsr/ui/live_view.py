"""How a strategy's samples appear while they are drawn: a panel that moves at a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING

from dsr.ui.console import Console, Style, one_line, printable
from dsr.ui.live_state import Board, Lane, Line
from runtime.base.events import Event, Notice, SampleFinished, SampleNoted

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

_SECONDS_BETWEEN_FRAMES = 0.1
# Left free at the right: a terminal shows "^C" where the cursor stands; below: where the cursor stands.
_COLUMNS_FREE, _ROWS_FREE = 4, 1
_LONGEST_ANSWER = 200
_PLAIN = {ord("█"): "#", ord("…"): "~"}  # for terminals without Unicode


class LaneDisplay:
    """Shows what the samples of one question do. What was decided in the end is for others to tell."""

    def __init__(
        self, console: Console, title: str, *, voting: bool = True, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._board = Board(title, voting)
        self._now = now
        self._drawn_at = -_SECONDS_BETWEEN_FRAMES
        self._live: Live | None = None

    def show(self, events: Generator[Event, None, None]) -> None:
        """Everything that comes; the panel is gone afterwards, whatever happens."""
        try:
            with closing(events):
                for event in events:
                    self(event)
        finally:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._say(event.text)
            return
        self._board.take(event, self._now())
        if self._console.live:
            self._move(at_once=isinstance(event, SampleFinished | SampleNoted))
        elif isinstance(event, SampleFinished) and event.completion.begun:
            self._console.say(sample_line(self._board.lanes[event.completion.sample], self._board.voting))

    def _say(self, text: str) -> None:
        if self._live is None:
            self._console.say(text)
        else:  # above the panel: written by anybody else, it would land within it
            self._live.console.print(printable(text), style=_style("dim"), markup=False, highlight=False)

    def _move(self, *, at_once: bool) -> None:
        now = self._now()
        if now - self._drawn_at < _SECONDS_BETWEEN_FRAMES and not at_once:
            return
        self._drawn_at = now
        live = self._live or self._start()
        size = live.console.size
        lines = self._board.lines(size.width - _COLUMNS_FREE, size.height - _ROWS_FREE)
        live.update(_text(lines), refresh=True)

    def _start(self) -> Live:
        from rich.console import Console as RichConsole
        from rich.live import Live

        self._live = Live(
            console=RichConsole(stderr=True, highlight=False),
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()
        return self._live


def sample_line(lane: Lane, voting: bool) -> str:
    """'sample 3: 933 (84 tokens)'."""
    if not voting or lane.state == "stopped":
        return f"sample {lane.sample + 1}: {lane.note or 'ended'} ({lane.tokens} tokens)"
    said = one_line(lane.answer)[:_LONGEST_ANSWER] if lane.answer is not None else "no answer"
    note = f", {lane.note}" if lane.note else ""
    return f"sample {lane.sample + 1}: {said} ({lane.tokens} tokens{note})"


def _text(lines: list[Line]) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop", end="")
    for number, line in enumerate(lines):
        text.append("\n" if number else "")
        for piece, style in line:
            text.append(_spelled(piece), _style(style))
    return text


def _spelled(text: str) -> str:
    """`text` in what stderr can spell, one character for one: what is written otherwise takes more columns."""
    encoding = sys.stderr.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def _style(style: Style) -> str:
    return "" if style == "plain" or os.environ.get("NO_COLOR") else style
