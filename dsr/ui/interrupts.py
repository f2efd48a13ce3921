"""Ctrl-C while native code runs: the handler sets a flag that the engine checks, since no exception passes native code.

SIGTERM and SIGHUP (the terminal was closed) are a Ctrl-C after which the program ends: partial work is kept, temporary
files and child processes go. `exit_code` tells which signal it was, as shells do.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from runtime.base.run import Stop

_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows has no SIGHUP
_SAME = 1.0  # seconds; timeout(1) signals the process and then its whole group


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP. Of a plain KeyboardInterrupt in `exec`, as in the making of a dataclass, Python remembers that
    it was not handled there, and ends as after Ctrl-C."""


class _End:
    """The signal that ends the program, once it came."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._at = 0.0

    def is_new(self, number: int) -> bool:
        """Notes the signal; False for one that came together with the one before."""
        before, self._at = self._at, time.monotonic()
        known, self.number = self.number is not None, number
        return not known or self._at - before > _SAME


_end = _End()


def watch_signals() -> None:
    """From now on SIGTERM and SIGHUP raise Ended. What is ignored stays ignored, as nohup wants it."""
    for number in _ENDS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _on_end)


def unwatch_signals() -> None:
    """Before the interpreter exits, where an exception would be a traceback: any signal ends the process at once."""
    for number in (signal.SIGINT, *_ENDS):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def is_ending() -> bool:
    """Whether a signal came that ends the program, and not only what it does."""
    return _end.number is not None


def exit_code() -> int:
    """130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (_end.number if _end.number is not None else signal.SIGINT)


def _on_end(number: int, _: FrameType | None) -> None:
    if _end.is_new(number):
        raise Ended


@contextmanager
def stopping(stop: Stop) -> Iterator[None]:
    """In the block, the first Ctrl-C sets `stop`; a second one, before `stop` was taken, raises KeyboardInterrupt.

    A Ctrl-C at the end of the block does not stop the next answer. After SIGTERM or SIGHUP no block begins.
    """

    def on_interrupt(number: int, _: FrameType | None) -> None:
        if number in _ENDS and not _end.is_new(number):
            return
        if stop.wanted:
            raise Ended if is_ending() else KeyboardInterrupt
        stop.set()

    if is_ending():
        raise Ended
    ends = [number for number in _ENDS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, *ends)}
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
