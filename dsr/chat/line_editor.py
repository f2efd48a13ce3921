"""Messages typed at the terminal: the line editor with its history, and messages of several lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output

from dsr.chat.completion import Command, candidates
from dsr.chat.record import Record
from dsr.store import paths
from dsr.ui.interrupts import is_ending

BLOCK = '"""'


class _Completer(Completer):
    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        for each in candidates(document.text_before_cursor, self._commands):
            yield Completion(each.text, start_position=-each.replaced, display=each.shown)


def line_editor(record: Record, commands: Mapping[str, Command]) -> PromptSession[str]:
    return PromptSession(
        history=_input_history() if record.keeps else InMemoryHistory(),
        completer=_Completer(commands),
        complete_while_typing=False,
        enable_open_in_editor=True,  # Ctrl-X Ctrl-E
        tempfile_suffix=".md",
        # Where stdout goes into a file, the prompt must not.
        output=create_output(always_prefer_tty=True),
    )


def first_message(record: Record) -> str | None:
    """The first message, before a model is open; None at the end of input."""
    read = line_editor(record, {}).prompt
    while not is_ending():
        try:
            if (text := read_message(read)).strip():
                return text
        except KeyboardInterrupt:
            continue
        except EOFError:
            break
    return None


def is_command(text: str) -> bool:
    """Whether a message is a command for dsr. A path is not a command, nor are several lines, except of /system."""
    word = (text.split(maxsplit=1) or [""])[0]
    if "\n" in text.strip():
        return text.startswith("/") and word == "/system"
    return text.startswith("/") and "/" not in word[1:]


def read_message(read: Callable[[str], str]) -> str:
    """One message: a line, or everything between two lines of triple quotes.

    Several lines at once were pasted, and are the message as they are. The end of input closes an open block too;
    without one it raises EOFError.
    """
    line = read(">>> ")
    if "\n" in line or not line.lstrip().startswith(BLOCK):
        return line
    rest = line.lstrip()[len(BLOCK) :]
    lines: list[str] = []
    while not rest.rstrip().endswith(BLOCK):
        lines.append(rest)
        try:
            rest = read("... ")
        except EOFError:
            rest = BLOCK
    return "\n".join([*lines, rest.rstrip()[: -len(BLOCK)]]).strip("\n")


def _input_history() -> History:
    """The input history, readable by its owner only; in memory where the folder cannot be written."""
    path = paths.input_history_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
