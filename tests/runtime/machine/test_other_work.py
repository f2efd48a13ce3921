"""Other work on the machine while something is measured."""

from __future__ import annotations

import pytest

from runtime.machine import other_work
from runtime.machine.other_work import OtherWork, WorkClock


def between(monkeypatch: pytest.MonkeyPatch, start: WorkClock, end: WorkClock) -> OtherWork:
    """The other work of a machine with two cores, whose clock shows `start`, and then `end`."""
    monkeypatch.setattr(other_work.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(WorkClock, "now", lambda: end)
    return start.until_now()


def clock(wall: float, busy: float, own: float, stolen: float = 0.0, throttled: int = 0) -> WorkClock:
    return WorkClock(wall, busy, own, stolen, throttled)


def test_own_work_is_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    assert between(monkeypatch, clock(0, 100, 50), clock(10, 120, 70)) == OtherWork()


def test_other_work_and_a_greedy_host_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    work = between(monkeypatch, clock(0, 100, 50), clock(10, 110, 55, stolen=1.0, throttled=3))
    assert work == OtherWork(load=0.25, stolen=0.05, throttled=3)
    assert work.disturbance == (
        "other work took 25% of the processor, the host of this virtual machine took 5% of the processor, "
        "heat slowed down cores 3 times"
    )


def test_little_is_not_worth_a_word() -> None:
    assert OtherWork(0.1, 0.02, 0).disturbance == ""


def test_the_clock_goes_on() -> None:
    before = WorkClock.now()
    assert WorkClock.now().wall >= before.wall
    assert before.own > 0
