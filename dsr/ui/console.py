"""Writes the output of commands: results to stdout, messages to stderr. Colour and bars only at a terminal."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import IO, Any, Literal

from dsr.ui.streams import write_err, write_out
from dsr.ui.text import align, display_width, wrap_words
from runtime.base.errors import Aborted, DsrError, UsageError
from runtime.base.texts import json_text

Style = Literal["plain", "dim", "bold", "red", "yellow", "green", "cyan"]

# SGR codes of ECMA-48: few enough to write down, so that a one-line message does not wait for rich to load.
_SGR: Mapping[Style, str] = {"dim": "2", "bold": "1", "red": "31", "yellow": "33", "green": "32", "cyan": "36"}


class Mode(Enum):
    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


def printable(text: str) -> str:
    """Removes control and format characters, which could control a terminal, from a file's or the network's text."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))


def printable_stream(text: str) -> str:
    """`printable` for a piece of a model's text. Joiners stay: some emoji and scripts need them."""
    return "".join(c for c in text if c in "\n\t\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def is_terminal(stream: IO[str]) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def shows_colour(stream: IO[str]) -> bool:
    """Whether the stream is a terminal and `NO_COLOR` is not set."""
    return not os.environ.get("NO_COLOR") and is_terminal(stream)


def styled(text: str, style: Style, stream: IO[str]) -> str:
    """`text` in a style if the stream shows colours."""
    if style == "plain" or not text or not shows_colour(stream):
        return text
    return f"\x1b[{_SGR[style]}m{text}\x1b[0m"


def columns(stream: IO[str]) -> int:
    """The width of the stream's terminal now. `COLUMNS` overrides it; 80 when it is unknown."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def screen(stream: IO[str]) -> tuple[int, int]:
    """The columns and rows of the stream's terminal now. `COLUMNS` and `LINES` override them; 80 and 24 if unknown."""
    told = os.environ.get("LINES", "")
    if told.isdecimal() and int(told) > 0:
        return columns(stream), int(told)
    try:
        return columns(stream), os.get_terminal_size(stream.fileno()).lines or 24
    except (OSError, ValueError):
        return columns(stream), 24


def wrapped(text: str, stream: IO[str], hang: int = 0) -> str:
    """`text` wrapped between words to the width of a terminal; unchanged for other streams.

    A row of a table (`hang`) with a word wider than a line, such as a path, stays unchanged, so that one can copy it.
    """
    width = columns(stream)
    if not is_terminal(stream) or display_width(text) <= width:
        return text
    if hang and any(hang + display_width(word) > width for word in text.split()):
        return text
    return "\n".join(wrap_words(text, width, hang=hang))


class Console:
    """Prints for one command, in the mode of its --json and --quiet. `streams`: events are lines of JSON (--jsonl).

    `has_answered`: this process printed its object, so that an error must not print a second one.
    """

    has_answered = False

    def __init__(self, *, json_mode: bool = False, quiet: bool = False, jsonl: bool = False) -> None:
        self.mode = Mode.JSON if json_mode or jsonl else Mode.QUIET if quiet else Mode.HUMAN
        self.streams = jsonl

    @property
    def human(self) -> bool:
        return self.mode is Mode.HUMAN

    @property
    def quiet(self) -> bool:
        return self.mode is Mode.QUIET

    @property
    def live(self) -> bool:
        """Whether to draw bars and live views: human mode, and stderr is a terminal."""
        return self.human and is_terminal(sys.stderr)

    def data(self, text: str, *, style: Style = "plain") -> None:
        """One line of the result, in human and quiet mode."""
        if self.mode is not Mode.JSON:
            write_out(styled(text, style, sys.stdout) + "\n")

    def summary(self, text: str) -> None:
        """The result in a sentence, as `data`, wrapped between words at a terminal."""
        self.data(wrapped(text, sys.stdout))

    def json(self, schema: str, value: Mapping[str, Any]) -> None:
        """The whole result as one object, in JSON mode only."""
        if self.mode is Mode.JSON:
            Console.has_answered = True
            write_out(json_text({"schema": schema, **value}) + "\n")

    def say(self, text: str, *, style: Style = "dim", hang: int = 0) -> None:
        """A message about the progress, not in quiet and JSON mode. Wrapped lines are indented by `hang`."""
        if self.human:
            write_err(styled(wrapped(text, sys.stderr, hang), style, sys.stderr) + "\n")

    def warn(self, text: str) -> None:
        """A warning, in every mode."""
        if self.streams:
            from dsr.ui.event_lines import event_line

            write_out(event_line("warning", text=one_line(text)))
        _labelled("warning: ", "yellow", text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Aligned columns on stdout in human mode. Cells are never cut: a narrow terminal wraps them.

        `right` are the indices of columns to align right.
        """
        if not self.human:
            return
        lines = align([header, *([printable(cell) for cell in row] for row in rows)], right)
        for number, line in enumerate(lines):
            write_out(styled(line, "bold" if number == 0 else "plain", sys.stdout) + "\n")

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Asks yes or no, unless `yes`. Raises UsageError without a terminal, instead of waiting for an answer."""
        if yes:
            return True
        if not sys.stdin.isatty() or not self.human:
            raise UsageError(f"there is no terminal to ask at: {question}", hint="add -y to say yes")
        write_err(f"{question} [y/N] ")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def report_error(error: DsrError, *, json_mode: bool) -> None:
    """Shows an error; with --json also as an object on stdout, unless the command printed its own."""
    if json_mode and not Console.has_answered:
        said = {"error": one_line(error.message), "hint": one_line(error.hint) if error.hint else None}
        Console(json_mode=True).json("dsr.error/1", {**said, "exit_code": error.exit_code})
    show_error(error)


def show_error(error: DsrError) -> None:
    """Prints what happened in one line and the hint in a second one. An interruption is not shown as an error."""
    if error.exit_code == Aborted.exit_code:
        write_err(one_line(error.message) + "\n")
        return
    _labelled("error: ", "red", error.message)
    if error.hint:
        _labelled("hint: ", "cyan", error.hint)


def _labelled(label: str, style: Style, text: str) -> None:
    line = wrapped(label + one_line(text), sys.stderr)
    write_err(styled(label, style, sys.stderr) + line[len(label) :] + "\n")


def one_line(text: str) -> str:
    return " ".join(printable(text).split())
