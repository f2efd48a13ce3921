"""Ctrl-C: the first is a wish, the second a demand, and a late one is forgotten. SIGTERM and SIGHUP end the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dsr.ui import interrupts
from dsr.ui.interrupts import stopping
from runtime.base.run import Stop

ROOT = Path(__file__).resolve().parents[3]
needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def test_the_first_ctrl_c_only_sets_the_wish() -> None:
    stop = Stop()
    with stopping(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.wanted


def test_a_second_ctrl_c_that_nobody_heard_interrupts() -> None:
    stop = Stop()
    with pytest.raises(KeyboardInterrupt), stopping(stop):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert not stop.wanted


def test_when_the_first_was_heard_the_next_is_a_wish_again() -> None:
    stop = Stop()
    with stopping(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.take()
        signal.raise_signal(signal.SIGINT)
        assert stop.take()


def test_a_wish_that_came_too_late_does_not_stop_the_next_answer() -> None:
    stop = Stop()
    with stopping(stop):
        signal.raise_signal(signal.SIGINT)
    assert not stop.wanted


def test_afterwards_ctrl_c_is_what_it_was_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="x"), stopping(Stop()):
        raise ValueError("x")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> interrupts._End:
    fresh = interrupts._End()
    monkeypatch.setattr(interrupts, "_end", fresh)
    return fresh


@needs_posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_the_program_is_a_ctrl_c_after_which_nothing_begins(
    end: interrupts._End, number: signal.Signals, code: int
) -> None:
    assert not interrupts.is_ending() and interrupts.exit_code() == 130
    stop, before = Stop(), signal.getsignal(number)
    with stopping(stop):
        signal.raise_signal(number)
        assert stop.take()
    assert signal.getsignal(number) is before
    assert interrupts.is_ending() and interrupts.exit_code() == code
    with pytest.raises(KeyboardInterrupt), stopping(stop):
        pytest.fail("a block began")


@needs_posix
def test_the_same_signal_twice_at_once_is_one(end: interrupts._End, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.5, 102.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), stopping(Stop()):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert next(clock, None) == 102.0  # the second did not interrupt
        clock = iter([104.0])
        signal.raise_signal(signal.SIGTERM)


@needs_posix
def test_what_nohup_ignores_stays_ignored(end: interrupts._End) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupts.watch_signals()
        with stopping(Stop()):
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and not interrupts.is_ending()
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def processes_marked(mark: str) -> list[psutil.Process]:
    """Those that a command started, and itself, by a variable of their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("STARTED_BY_TEST") == mark:
                found.append(process)
    return found


@needs_posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
@pytest.mark.parametrize(
    ("command", "ready"),
    [
        (("bench", "speed", "nano", "-t", "1", "-p", "512", "-n", "8", "-r", "1000"), "worker"),
        (("node", "serve", "--port", "0", "-t", "1"), "server"),
    ],
)
def test_no_child_outlives_the_program(
    tmp_path: Path, command: tuple[str, ...], ready: str, number: signal.Signals, code: int
) -> None:
    mark = str(tmp_path)
    environment = {**os.environ, "DSR_HOME": str(tmp_path / "home"), "STARTED_BY_TEST": mark}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(
        [sys.executable, "-m", "dsr", *command], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, **quiet
    ) as process:
        while not any(ready in word for each in processes_marked(mark)[1:] for word in each.cmdline()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait() == code
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
    psutil.wait_procs(processes_marked(mark), timeout=20)
    assert processes_marked(mark) == []


@needs_posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("asked", [b"", b"What is 347 + 586?\r"])
def test_a_conversation_ends_and_the_terminal_is_as_before(
    tmp_path: Path, asked: bytes, number: signal.Signals, code: int
) -> None:
    import pty
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    environment = {**os.environ, "DSR_HOME": str(tmp_path), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "dsr", "chat", "nano", "-t", "1"],
        cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    ) as process:  # fmt: skip
        shown = b""
        while b">>>" not in shown:
            shown += os.read(ours, 4096)
        assert termios.tcgetattr(theirs) != before
        os.write(ours, asked)
        while asked and b"column" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(number)
        threading.Thread(target=_drain, args=(ours,), daemon=True).start()
        assert process.wait() == code
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)


def _drain(terminal: int) -> None:
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass
