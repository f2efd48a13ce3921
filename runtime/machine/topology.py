"""How the processor is built, as Linux tells in /sys: caches, NUMA nodes, cores of different strength.

`root` is "/", or a folder that stands for it. Where nothing is told (other systems, some containers) the answers are
those of a plain machine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def largest_cache(root: Path) -> int:
    """Bytes of the largest cache that the first core reaches; 0 where it is not told."""
    sizes = [0]
    for entry in _listed(root / "sys/devices/system/cpu/cpu0/cache", r"index\d+"):
        match = re.fullmatch(r"(\d+)([KMG]?)", _text(entry / "size"))
        if match:
            sizes.append(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]])
    return max(sizes)


def numa_nodes(root: Path) -> int:
    """Parts of the memory that are near to some cores and far from others; 1 on a plain machine."""
    return max(1, len(_listed(root / "sys/devices/system/node", r"node\d+")))


def strong_cores(root: Path) -> int | None:
    """Logical cores of the stronger kind where there are two kinds; None where all are alike.

    x86 lists the kinds as two event sources, ARM gives every core a capacity.
    """
    strong, weak = (_cpu_list(_text(root / "sys/devices" / kind / "cpus")) for kind in ("cpu_core", "cpu_atom"))
    if strong and weak:
        return strong
    cores = _listed(root / "sys/devices/system/cpu", r"cpu\d+")
    capacities = [int(text) for core in cores if (text := _text(core / "cpu_capacity")).isdigit()]
    best = capacities.count(max(capacities, default=0))
    return best if best < len(capacities) else None


def _cpu_list(text: str) -> int:
    """How many CPUs a list like "0-7,16" names."""
    count = 0
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match:
            count += int(match[2] or match[1]) - int(match[1]) + 1
    return count


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if re.fullmatch(pattern, name)]
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
