from __future__ import annotations

from pathlib import Path

import pytest

from dsr.bench.kit.conditions import watching
from runtime.machine.host import probe, throttle_count
from runtime.machine.other_work import OtherWork, WorkClock


def test_work_is_known_at_the_end_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkClock, "until_now", lambda self: OtherWork(load=0.25))
    with watching(probe()) as watch:
        assert watch.work == OtherWork()
    assert (watch.conditions.load, watch.conditions.disturbed) == (0.25, "other work took 25% of the processor")


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
