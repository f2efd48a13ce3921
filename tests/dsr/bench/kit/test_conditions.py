from __future__ import annotations

from pathlib import Path

import pytest

from dsr.bench.kit import conditions
from dsr.bench.kit.conditions import Watch, disturbance, watching
from runtime.machine.host import probe, throttle_count


def clock(wall: float, busy: float, own: float, stolen: float = 0.0, throttled: int = 0) -> conditions._Clock:
    return conditions._Clock(wall, busy, own, stolen, throttled)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions.os, "cpu_count", lambda: 2)


def watched(monkeypatch: pytest.MonkeyPatch, *clocks: conditions._Clock) -> Watch:
    told = iter(clocks)
    monkeypatch.setattr(conditions._Clock, "now", lambda: next(told))
    with watching(probe()) as watch:
        assert watch.load == 0.0
    return watch


@pytest.mark.usefixtures("two_cores")
def test_own_work_is_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(monkeypatch, clock(0, 100, 50), clock(10, 120, 70))
    assert watch.load == 0.0
    assert watch.conditions.disturbed == ""


@pytest.mark.usefixtures("two_cores")
def test_other_work_and_a_greedy_host_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(monkeypatch, clock(0, 100, 50), clock(10, 110, 55, stolen=1.0, throttled=3))
    assert watch.load == 0.25
    assert watch.stolen == 0.05
    assert watch.conditions.disturbed == (
        "other work took 25% of the processor, the host of this virtual machine took 5% of the processor, "
        "heat slowed down cores 3 times"
    )


def test_little_is_not_worth_a_word() -> None:
    assert disturbance(0.1, 0.02, 0) == ""


def test_conditions_name_the_machine_and_both_versions() -> None:
    with watching(probe()) as watch:
        pass
    told = watch.conditions
    assert (told.processor, told.cores, told.memory) == (probe().cpu, probe().cores, probe().memory_total)
    assert told.engine == "0.3.36"
    assert told.dsr


def test_throttling_is_added_up_and_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    for core, count in (("cpu0", "3\n"), ("cpu1", "4\n"), ("cpu2", "?")):
        file = tmp_path / core / "thermal_throttle" / "core_throttle_count"
        file.parent.mkdir(parents=True)
        file.write_text(count)
    assert throttle_count(tmp_path) == 7
