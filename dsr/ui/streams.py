"""The three standard streams when they are closed, full, broken, or cannot encode a character.

A failed write to stdout is an error, because the result is lost. A failed write to stderr is ignored. A closed pipe
(`| head`) raises BrokenPipeError, which ends the command without a message.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO, cast

from runtime.base.errors import DsrError


def mend() -> None:
    """Opens closed streams (`<&-`, `>&-`), and lets streams replace characters that they cannot encode.

    The next opened file would get a free descriptor number, and messages would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))
        elif hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _occupy(number: int) -> None:
    """Opens the null device for a closed file descriptor."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def write_out(text: str) -> None:
    """Writes to stdout and flushes. Raises BrokenPipeError for a closed pipe, DsrError for other errors."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon(sys.stdout)
        raise
    except OSError as error:
        abandon(sys.stdout)
        raise DsrError(f"the output cannot be written: {error.strerror}") from None


def output_error() -> DsrError | None:
    """Why stdout takes no more of what was written to it, for example by a library; None if it took all."""
    try:
        write_out("")
    except (BrokenPipeError, ValueError):  # ValueError: it is closed
        return None
    except DsrError as error:
        return error
    return None


def write_err(text: str) -> None:
    """Writes to stderr and flushes; ignores errors."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """Discards the buffer of the stream: Python would write it again at exit, and print an error."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def read_in() -> bytes | None:
    """The piped input; None when stdin is a terminal."""
    return None if sys.stdin.isatty() else cast(bytes, sys.stdin.buffer.read())
