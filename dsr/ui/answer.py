"""Shows an answer: the answer on stdout, the thought and everything else on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TextIO

from dsr.store.settings import Thinking
from dsr.ui.console import Console, Mode, columns, is_terminal, printable_stream, screen, shows_colour, styled
from dsr.ui.streams import write_err, write_out
from dsr.ui.text import WordWrap
from runtime.base.events import Event, Listener, Notice, Progress, TextDrawn, ignore
from runtime.base.types import Completion, SamplingParams

if TYPE_CHECKING:
    from dsr.ui.markdown.stream import MarkdownStream

# "rendered": a terminal gets Markdown and formulas as text for people. "wrapped": the text of the model between words.
# "exact": the text of the model, of which only what could control a terminal is missing.
Form = Literal["rendered", "wrapped", "exact"]
# A counter that moves faster than this cannot be read.
_SECONDS_BETWEEN_COUNTS = 0.1


@dataclass(slots=True)
class _Text:
    """Text for one stream: unchanged into a file or pipe; printable at a terminal, and in a form."""

    stream: TextIO
    form: Form = "wrapped"
    terminal: bool = False
    open_line: bool = False
    _wrap: WordWrap = field(init=False)
    _markdown: MarkdownStream | None = None

    def __post_init__(self) -> None:
        self.terminal = is_terminal(self.stream)
        self._wrap = WordWrap(lambda: columns(self.stream))
        if self.terminal and self.form == "rendered":
            from dsr.ui.markdown.stream import MarkdownStream

            self._markdown = MarkdownStream(lambda: screen(self.stream), styled=shows_colour(self.stream))

    def passed(self, text: str) -> str:
        """The part to write now, after the next piece of text."""
        if self._markdown is not None:
            return self._markdown.feed(printable_stream(text))
        self.open_line = not text.endswith("\n")
        if not self.terminal:
            return text
        return self._wrap.feed(printable_stream(text)) if self.form == "wrapped" else printable_stream(text)

    def ended(self) -> str:
        """The rest to write, and the end of the line if it is open."""
        if self._markdown is not None:
            return self._markdown.finish()
        last = self._wrap.finish() + ("\n" if self.open_line else "")
        self.open_line = False
        return last


@dataclass(slots=True)
class AnswerDisplay:
    """Shows one answer while it is drawn. `listen` gets the progress events (loading, reading the prompt).

    `form`: how a terminal gets the answer.
    """

    console: Console
    thinking: Thinking
    listen: Listener = ignore
    form: Form = "rendered"
    _noted: bool = False
    _part: Literal["thinking", "answer"] | None = None
    _pieces: int = 0
    _counted_at: float = 0.0
    _count: str = ""
    _thought: _Text = field(init=False)
    _answer: _Text = field(init=False)

    def __post_init__(self) -> None:
        self._thought, self._answer = _Text(sys.stderr), _Text(sys.stdout, self.form)

    def __call__(self, event: Event) -> None:
        if isinstance(event, TextDrawn):
            self._noted = False
            if event.part == "thinking":
                self._show_thought(event.text)
            else:
                self._show_answer(event.text)
        elif isinstance(event, Notice):
            self._end_line()
            self.console.say(event.text)
            self._noted = True
        elif isinstance(event, Progress):
            self.listen(event)

    def show(self, events: Generator[Event, None, None]) -> None:
        """Show all events. After an error in the middle, the drawing and the last line end there."""
        try:
            with closing(events):
                for event in events:
                    self(event)
        finally:
            self._end_line()

    def finish(self, completion: Completion, params: SamplingParams, stopped: str = "stopped") -> None:
        """Tell the reader how the answer ended, where it is not obvious. `stopped` says what cancelled it."""
        if completion.thinking_tokens and self.thinking == "summary":
            self.console.say(f"thought for {completion.thinking_tokens} tokens")
        if completion.thought_closed_by == "budget":
            self.console.say("the thinking budget was spent; the answer follows from an unfinished thought")
        # If a notice came last, the reader knows why the answer ends.
        if completion.looped:
            self.console.say("ended: the answer repeats itself; --loops keep lets it go on")
        elif completion.finish_reason == "length" and not self._noted:
            at_limit = params.max_tokens is not None and len(completion.tokens) >= params.max_tokens
            self.console.say(
                f"cut: the limit of {params.max_tokens} tokens is reached" if at_limit else "cut: the context is full"
            )
        if completion.finish_reason == "cancelled":
            self.console.say(stopped)
        elif not completion.answer.strip() and not completion.calls:
            inside = "ended inside its thought and " if completion.thinking else ""
            self.console.say(f"the model {inside}gave no answer")

    def show_text(self, completion: Completion) -> None:
        """Show a sample that was not shown while it was drawn."""
        try:
            if completion.thinking:
                self(TextDrawn(completion.sample, "thinking", completion.thinking))
            if completion.answer:
                self(TextDrawn(completion.sample, "answer", completion.answer))
        finally:
            self._end_line()

    def _show_thought(self, text: str) -> None:
        if not self.console.human:
            return
        self._pieces += 1
        if self.thinking == "show":
            self._turn_to("thinking")
            write_err(styled(self._thought.passed(text), "dim", sys.stderr))
        elif self.console.live and time.monotonic() - self._counted_at > _SECONDS_BETWEEN_COUNTS:
            self._counted_at = time.monotonic()
            self._count = f"thinking ... {self._pieces}"
            write_err(f"\r{styled(self._count, 'dim', sys.stderr)}")

    def _show_answer(self, text: str) -> None:
        self._turn_to("answer")
        if self.console.mode is not Mode.JSON:
            write_out(self._answer.passed(text))

    def _turn_to(self, part: Literal["thinking", "answer"]) -> None:
        """Begin a part. An empty line separates thought and answer where both appear at a terminal."""
        if self._part == part:
            return
        self._end_line()
        if self._part is not None and self._thought.terminal and self._answer.terminal:
            write_err("\n")
        self._part = part

    def _end_line(self) -> None:
        if self._count:
            write_err("\r" + " " * len(self._count) + "\r")
            self._count = ""
        if last := self._thought.ended():
            write_err(styled(last, "dim", sys.stderr))
        if last := self._answer.ended():
            write_out(last)
