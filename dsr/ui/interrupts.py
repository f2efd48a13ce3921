"""Ctrl-C while native code runs: the handler sets a flag that the engine checks, since no exception passes native code.

Commands whose partial work is kept treat SIGTERM in the same way.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from runtime.base.run import Stop

CTRL_C = (signal.SIGINT,)
ANY_END = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping(stop: Stop, signals: Sequence[signal.Signals] = CTRL_C) -> Iterator[None]:
    """In the block, the first Ctrl-C sets `stop`; a second one, before `stop` was taken, raises KeyboardInterrupt.

    A Ctrl-C at the end of the block does not stop the next answer. Commands that end with the block use `ANY_END`.
    """

    def on_interrupt(_: int, __: FrameType | None) -> None:
        if stop.wanted:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, on_interrupt) for number in signals}
    try:
        with _no_caret_c():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.take()


@contextmanager
def _no_caret_c() -> Iterator[None]:
    """Keeps the terminal from writing '^C' into an answer, where that is possible."""
    number = _own_terminal()
    if number is None:
        yield
        return
    import termios

    before = termios.tcgetattr(number)
    termios.tcsetattr(number, termios.TCSANOW, [*before[:3], before[3] & ~termios.ECHOCTL, *before[4:]])
    try:
        yield
    finally:
        if _own_terminal() == number:
            termios.tcsetattr(number, termios.TCSANOW, before)


def _own_terminal() -> int | None:
    """The terminal that this process may change. The kernel halts a background process that changes it."""
    if sys.platform == "win32":
        return None
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if os.isatty(stream.fileno()) and os.tcgetpgrp(stream.fileno()) == os.getpgrp():
                return stream.fileno()
    return None
