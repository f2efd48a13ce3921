"""Ctrl-C while native code runs: a flag that the engine looks at, since an exception could not pass through it. Where
what was done so far is worth keeping, a wish to terminate is heard in the same way."""

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
    """Within the block the first Ctrl-C sets `stop`; a second one, when nobody heard the first, interrupts as usual.

    A Ctrl-C that came too late for the block is forgotten: it must not stop the next answer. Commands that end with the
    block take `ANY_END`.
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
    """Keep the terminal from writing '^C' into the middle of an answer, where there is a terminal that can."""
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
    """The terminal this process may change: one that changes it from the background is halted by the kernel."""
    if sys.platform == "win32":
        return None
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if os.isatty(stream.fileno()) and os.tcgetpgrp(stream.fileno()) == os.getpgrp():
                return stream.fileno()
    return None
