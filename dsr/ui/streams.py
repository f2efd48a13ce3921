"""The three standard streams, whatever a caller did to them: closed, full, gone, or unable to spell a character.

What cannot be written to stdout is an error, since it is the result; what cannot be written to stderr is lost, since
nobody could be told. A reader of stdout who left (`| head`) raises BrokenPipeError, which ends the command silently.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO, cast

from runtime.base.errors import DsrError


def mend() -> None:
    """Open what was closed (`<&-`, `>&-`), and let no character that a stream cannot spell stop the program.

    A number that stays free would be given to the next file that is opened, and a stray message would be written there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))
        elif hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _occupy(number: int) -> None:
    """Give a closed file descriptor to the null device."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def write_out(text: str) -> None:
    """To stdout, at once. Raises BrokenPipeError when the reader left, DsrError when it cannot be written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon(sys.stdout)
        raise
    except OSError as error:
        _abandon(sys.stdout)
        raise DsrError(f"the output cannot be written: {error.strerror}") from None


def write_err(text: str) -> None:
    """To stderr, at once, if it still takes anything."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)


def _abandon(stream: TextIO) -> None:
    """Send what is still in the stream's buffer nowhere: Python would try again, and complain, while it exits."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def read_in() -> bytes | None:
    """Everything that is piped in; None where a person sits at the keyboard."""
    return None if sys.stdin.isatty() else cast(bytes, sys.stdin.buffer.read())
