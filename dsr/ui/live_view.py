"""The live view of a strategy's samples: a moving panel at a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING

from dsr.ui.console import Console, Style, one_line, printable
from dsr.ui.live_state import Line, LiveState, SampleState
from runtime.base.events import Event, Notice, SampleFinished, SampleNoted
from runtime.strategies.bounds import Budget

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

_SECONDS_BETWEEN_FRAMES = 0.1
# Left free at the right: a terminal shows "^C" where the cursor stands; below: where the cursor stands.
_COLUMNS_FREE, _ROWS_FREE = 4, 1
_LONGEST_ANSWER = 200
_PLAIN = {ord("█"): "#", ord("…"): "~"}  # for terminals without Unicode


class LiveView:
    """Shows the samples of one question while they are drawn. It does not show the verdict."""

    def __init__(
        self,
        console: Console,
        title: str,
        *,
        voting: bool = True,
        budget: Budget | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._state = LiveState(title, voting, budget, now() if budget is not None else 0.0)
        self._now = now
        self._drawn_at = -_SECONDS_BETWEEN_FRAMES
        self._live: Live | None = None

    def show(self, events: Generator[Event, None, None]) -> None:
        """Show all events; the panel is removed afterwards, also after an error."""
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
        self._state.take(event, self._now())
        if self._console.live:
            self._move(at_once=isinstance(event, SampleFinished | SampleNoted))
        elif isinstance(event, SampleFinished) and event.completion.begun:
            line = sample_line(self._state.samples[event.completion.sample], self._state.voting)
            spent = f"; {self._state.spent(self._now())}" if self._state.budget is not None else ""
            self._console.say(line + spent)

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
        lines = self._state.lines(size.width - _COLUMNS_FREE, size.height - _ROWS_FREE)
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


def sample_line(sample: SampleState, voting: bool) -> str:
    """'sample 3: 933 (84 tokens)'."""
    if not voting or sample.state == "stopped":
        return f"sample {sample.number + 1}: {sample.note or 'ended'} ({sample.tokens} tokens)"
    said = one_line(sample.answer)[:_LONGEST_ANSWER] if sample.answer is not None else "no answer"
    note = f", {sample.note}" if sample.note else ""
    return f"sample {sample.number + 1}: {said} ({sample.tokens} tokens{note})"


def _text(lines: list[Line]) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop", end="")
    for number, line in enumerate(lines):
        text.append("\n" if number else "")
        for piece, style in line:
            text.append(_spelled(piece), _style(style))
    return text


def _spelled(text: str) -> str:
    """`text` in the characters of stderr's encoding, one for one, so that it keeps its width."""
    encoding = sys.stderr.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def _style(style: Style) -> str:
    return "" if style == "plain" or os.environ.get("NO_COLOR") else style
