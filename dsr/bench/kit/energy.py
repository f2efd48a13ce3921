"""The energy that the processor used, from the counters of Linux (Documentation/power/powercap)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class EnergyMeter:
    """One counter for each processor package. A counter restarts at 0 after `ranges` microjoules."""

    files: tuple[Path, ...]
    ranges: tuple[int, ...]

    def read(self) -> tuple[int, ...]:
        """Returns the counters in microjoules, by package."""
        return tuple(_number(file) for file in self.files)

    def joules(self, before: tuple[int, ...]) -> float:
        """Returns the joules since `before` was read. Less than one full range may have passed, which takes minutes."""
        pairs = zip(self.read(), before, self.ranges, strict=True)
        return sum((now - then) % most if most else now - then for now, then, most in pairs) / 1e6


def meter(folder: Path = FOLDER) -> EnergyMeter | None:
    """Returns the counters of all packages; None if there are none or this user may not read them."""
    try:
        zones = sorted(_zones(folder))
        ranges = tuple(_number(zone / "max_energy_range_uj") for zone in zones)
        found = EnergyMeter(tuple(zone / "energy_uj" for zone in zones), ranges)
        return found if found.read() else None
    except (OSError, ValueError):
        return None


def missing_reason(folder: Path = FOLDER) -> str:
    """Returns why there is no meter; "" if there is one."""
    if meter(folder) is not None:
        return ""
    if not _zones(folder):
        return "this machine has no energy counters"
    return f"only an administrator may read the energy counters ({folder})"


def _zones(folder: Path) -> list[Path]:
    """Returns intel-rapl:0, intel-rapl:1, ..., on AMD too. Parts such as intel-rapl:0:1 are included in them."""
    return [zone for zone in folder.glob("intel-rapl:*") if zone.name.count(":") == 1]


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
