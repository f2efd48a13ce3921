"""A question at the terminal with a few answers of one letter."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress

from dsr.ui.console import wrapped
from dsr.ui.streams import write_err


def choose(question: str, answers: Mapping[str, str]) -> str:
    """The letter of the chosen answer. `answers` are letters with their words; the last one is that of Ctrl-D.

    Keys that were pressed before the question are thrown away: they cannot be meant for it.
    """
    _discard_typed_ahead()
    last = [*answers][-1]
    while True:
        write_err(f"{wrapped(question, sys.stderr)} ")
        line = sys.stdin.readline()
        if not line:
            write_err("\n")
            return last
        said = line.strip().lower()
        if said and any(said in (letter, word.lower()) for letter, word in answers.items()):
            return said[0]
        question = f"type {', '.join(answers)}:"


def _discard_typed_ahead() -> None:
    if sys.platform == "win32":
        return
    import termios

    with suppress(termios.error, OSError, ValueError):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
