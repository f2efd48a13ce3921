"""The structure of the CPU from Linux's /sys: caches, NUMA nodes, strong and weak cores.

`root` is "/", or a folder with the same layout. Without /sys (other systems, some containers) the results are those of
a plain CPU.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def largest_cache(root: Path) -> int:
    """Bytes of the largest cache of the first core; 0 if unknown."""
    sizes = [0]
    for entry in _listed(root / "sys/devices/system/cpu/cpu0/cache", r"index\d+"):
        match = re.fullmatch(r"(\d+)([KMG]?)", _text(entry / "size"))
        if match:
            sizes.append(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]])
    return max(sizes)


def numa_nodes(root: Path) -> int:
    """The number of NUMA nodes; 1 on a plain machine."""
    return max(1, len(_listed(root / "sys/devices/system/node", r"node\d+")))


def strong_cores(root: Path) -> int | None:
    """The number of strong logical cores on a CPU with two kinds of cores; None if all are alike.

    x86 lists the kinds as two event sources, ARM gives each core a capacity.
    """
    strong, weak = (_cpu_list(_text(root / "sys/devices" / kind / "cpus")) for kind in ("cpu_core", "cpu_atom"))
    if strong and weak:
        return strong
    cores = _listed(root / "sys/devices/system/cpu", r"cpu\d+")
    capacities = [int(text) for core in cores if (text := _text(core / "cpu_capacity")).isdigit()]
    best = capacities.count(max(capacities, default=0))
    return best if best < len(capacities) else None


def _cpu_list(text: str) -> int:
    """The number of CPUs in a list such as "0-7,16"."""
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
