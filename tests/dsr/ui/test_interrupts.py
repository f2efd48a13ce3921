"""Ctrl-C: the first is a wish, the second is a demand, and one that came too late is forgotten."""

from __future__ import annotations

import signal

import pytest

from dsr.ui.interrupts import ANY_END, stopping
from runtime.base.run import Stop


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


def test_a_wish_to_terminate_is_heard_where_that_is_wanted() -> None:
    stop, before = Stop(), signal.getsignal(signal.SIGTERM)
    with stopping(stop):
        assert signal.getsignal(signal.SIGTERM) is before
    with stopping(stop, ANY_END):
        signal.raise_signal(signal.SIGTERM)
        assert stop.take()
    assert signal.getsignal(signal.SIGTERM) is before
