from __future__ import annotations

from pathlib import Path

import pytest

from dsr.bench.kit import energy


def zone(folder: Path, name: str, microjoules: int, most: int = 1_000_000) -> Path:
    made = folder / name
    made.mkdir()
    (made / "energy_uj").write_text(f"{microjoules}\n")
    (made / "max_energy_range_uj").write_text(f"{most}\n")
    return made


def test_joules_of_all_packages_but_not_of_their_parts(tmp_path: Path) -> None:
    zones = [zone(tmp_path, name, 100) for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1")]
    zone(tmp_path, "dtpm", 100)
    meter = energy.meter(tmp_path)
    assert meter is not None
    before = meter.read()
    for each in zones:
        (each / "energy_uj").write_text("500100\n")
    assert meter.joules(before) == 1.0
    assert energy.missing_reason(tmp_path) == ""


def test_a_counter_that_began_anew(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", 900_000) / "energy_uj"
    meter = energy.meter(tmp_path)
    assert meter is not None
    before = meter.read()
    file.write_text("150000\n")
    assert meter.joules(before) == 0.25


def test_a_machine_without_counters(tmp_path: Path) -> None:
    assert energy.meter(tmp_path) is None
    assert energy.missing_reason(tmp_path) == "this machine has no energy counters"
    assert energy.meter(tmp_path / "missing") is None


def test_counters_that_only_the_administrator_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", 100)
    read = Path.read_text

    def refused(self: Path, *arguments: str, **options: str) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refused)
    assert energy.meter(tmp_path) is None
    assert "only an administrator may read" in energy.missing_reason(tmp_path)
