"""The energy that the processor says it took: counters of Linux's power capping (Documentation/power/powercap)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class EnergyMeter:
    """One counter per processor package, which restarts at 0 after `ranges` microjoules."""

    files: tuple[Path, ...]
    ranges: tuple[int, ...]

    def read(self) -> tuple[int, ...]:
        """Microjoules, by package."""
        return tuple(_number(file) for file in self.files)

    def joules(self, before: tuple[int, ...]) -> float:
        """Since `before` was read, which is less than a whole range ago: minutes, at the least."""
        pairs = zip(self.read(), before, self.ranges, strict=True)
        return sum((now - then) % most if most else now - then for now, then, most in pairs) / 1e6


def meter(folder: Path = FOLDER) -> EnergyMeter | None:
    """The counters of all packages; None where there are none, or where this user may not read them."""
    try:
        zones = sorted(_zones(folder))
        ranges = tuple(_number(zone / "max_energy_range_uj") for zone in zones)
        found = EnergyMeter(tuple(zone / "energy_uj" for zone in zones), ranges)
        return found if found.read() else None
    except (OSError, ValueError):
        return None


def why_not(folder: Path = FOLDER) -> str:
    """Why there is no meter, in words; "" where there is one."""
    if meter(folder) is not None:
        return ""
    if not _zones(folder):
        return "this machine does not tell what energy it takes"
    return f"what energy this machine takes may only be read by its administrator ({folder})"


def _zones(folder: Path) -> list[Path]:
    """intel-rapl:0, intel-rapl:1 (AMD's have the same names); their parts, intel-rapl:0:1, are counted in them."""
    return [zone for zone in folder.glob("intel-rapl:*") if zone.name.count(":") == 1]


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
