"""The computer that runs dsr: cores, caches, instruction sets, memory within the limits of its container, disk.

The engine finds GPUs: `runtime.llama.engine_info`. `root` is "/", or a folder with the same layout. Without /proc and
/sys (other systems, some containers) the results are those of a plain CPU without limits.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from runtime.base.process_memory import status_bytes
from runtime.base.types import ByteCount

# Instruction sets with kernels in ggml (ggml/src/ggml-cpu/), by the names of the operating system.
_KERNEL_FEATURES = (
    "ssse3", "sse4_1", "sse4_2", "avx", "avx_vnni", "avx2", "f16c", "fma", "bmi2", "avx512f", "avx512bw",
    "avx512vbmi", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8",
    "neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host:
    """The computer that runs dsr. Memory and disk in bytes, as far as this process may use them."""

    platform: str
    cpu: str
    cores: int
    threads: int
    features: tuple[str, ...]
    memory_total: ByteCount
    memory_available: ByteCount
    memory_limited_by: str
    disk_free: ByteCount

    def __post_init__(self) -> None:
        if self.cores < 1 or self.threads < 1:
            raise ValueError(f"a machine has at least one core, not {self.cores} with {self.threads} threads")
        if self.memory_available > self.memory_total:
            raise ValueError(f"{self.memory_available} of {self.memory_total} cannot be available")


def busy_cores(seconds: float = 0.1) -> int:
    """The logical cores that are busy now, measured for `seconds`."""
    import psutil

    return round(psutil.cpu_percent(interval=seconds) / 100 * (psutil.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """Seconds since the start, summed over all cores: busy, and stolen by the host of a virtual machine."""

    busy: float
    stolen: float


def processor_times() -> ProcessorTimes:
    import psutil

    times = psutil.cpu_times()
    stolen = float(getattr(times, "steal", 0.0))
    waiting = times.idle + getattr(times, "iowait", 0.0)
    # Guest time is also counted as user time.
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return ProcessorTimes(busy=sum(times) - waiting - stolen - twice, stolen=stolen)


def throttle_count(folder: Path = Path("/sys/devices/system/cpu")) -> int:
    """How often cores were throttled because of heat (Linux on Intel; 0 elsewhere)."""
    files = folder.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    return sum(_number(file) or 0 for file in files)


def resident_memory() -> ByteCount:
    """The resident memory of this process: its own, and the pages of mapped files that it has read."""
    import psutil

    return ByteCount(psutil.Process().memory_info().rss)


def peak_memory() -> ByteCount:
    """The largest `resident_memory` since this program started."""
    # getrusage may report a peak of the parent: it survives the start of another program.
    if peak := status_bytes("VmHWM"):
        return ByteCount(peak)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return ByteCount(most if platform.system() == "Darwin" else most << 10)


def probe(folder: Path | None = None) -> Host:
    """Inspect this computer. `disk_free` is that of `folder`, which need not exist."""
    import psutil

    total, available, limited_by = _memory()
    threads = usable_threads()
    info = _cpu_info(Path("/proc/cpuinfo"))
    return Host(
        platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        cpu=info.get("model name") or info.get("Hardware") or platform.processor() or platform.machine(),
        cores=max(1, min(psutil.cpu_count(logical=False) or threads, threads)),
        threads=threads,
        features=kernel_features(f"{info.get('flags', '')} {info.get('Features', '')}".split() or _other_features()),
        memory_total=ByteCount(total),
        memory_available=ByteCount(min(available, total)),
        memory_limited_by=limited_by,
        disk_free=free_disk(folder or Path.cwd()),
    )


def available_memory() -> ByteCount:
    """The bytes of memory that are free now, as far as this process may use them."""
    return ByteCount(_memory()[1])


def _memory() -> tuple[int, int, str]:
    """(all of the memory, what is free, what limits it)."""
    import psutil

    memory = psutil.virtual_memory()
    limit = cgroup_memory(Path("/"))
    if limit is None or limit.limit >= memory.total:
        return memory.total, memory.available, "the machine"
    return limit.limit, min(memory.available, max(0, limit.limit - limit.used)), limit.source


def usable_threads() -> int:
    """The logical cores that this process may use, limited by the CPU quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cpus(Path("/"))
    return max(1, min(allowed, allowed if quota is None else round(quota)))


def yield_to_others() -> None:
    """Give the calling thread the lowest priority, so that threads which compute tokens do not wait for it. Linux only:
    elsewhere a priority belongs to the whole process."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def free_disk(folder: Path) -> ByteCount:
    """The free bytes for this user on the disk of `folder`, which need not exist."""
    place = folder.expanduser().absolute()
    while not os.path.exists(place) and place != place.parent:  # Path.exists raises in a folder one may not read
        place = place.parent
    try:
        return ByteCount(shutil.disk_usage(place).free)
    except OSError:
        return ByteCount(0)


def kernel_features(flags: Iterable[str]) -> tuple[str, ...]:
    """The CPU flags that matter to the engine, in a fixed order."""
    present = {flag.lower() for flag in flags}
    return tuple(name for name in _KERNEL_FEATURES if name in present)


@dataclass(frozen=True, slots=True)
class CgroupMemory:
    """A memory limit of a control group. `used` excludes the page cache, both of files read once (inactive) and of
    files read again (active), such as a model that was opened twice.
    """

    limit: ByteCount
    used: ByteCount
    source: str


def cgroup_memory(root: Path) -> CgroupMemory | None:
    """The tightest memory limit of this process's control groups; None without a limit. Above `memory.high`, Linux
    slows a process down until it hardly moves, so that counts as a limit, too.

    Version 2 and version 1 of cgroups, every ancestor included (Documentation/admin-guide/cgroup-v2.rst and
    cgroup-v1/memory.rst of Linux). `root` is "/", or a folder that stands for it.
    """
    found = []
    for base, group, names in _memory_groups(root):
        limit_names, used_name, cache_prefix = names
        for folder, limit_name in product(_with_ancestors(base, group), limit_names):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            # Version 1 says "none" with the largest page-aligned 63-bit number.
            if limit is None or used is None or limit >= 2**62:
                continue
            reclaimable = _page_cache(folder / "memory.stat", cache_prefix)
            source = f"a limit of its control group ({folder / limit_name})"
            found.append(CgroupMemory(ByteCount(limit), ByteCount(max(0, used - reclaimable)), source))
    return min(found, key=lambda each: each.limit - each.used, default=None)


def cgroup_cpus(root: Path) -> float | None:
    """The CPU quota of this process's control groups in cores; None without a quota."""
    quotas = []
    for controllers, group in _membership(root):
        if not controllers:
            for folder in _with_ancestors(_unified(root), group):
                quota, _, period = _text(folder / "cpu.max").partition(" ")
                if quota.isdigit() and period.strip().isdigit() and int(period) > 0:
                    quotas.append(int(quota) / int(period))
        elif "cpu" in controllers:
            for folder in _with_ancestors(_version_1(root, "cpu"), group):
                quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
                if quota_us and period_us and quota_us > 0:
                    quotas.append(quota_us / period_us)
    return min(quotas, default=None)


def _memory_groups(root: Path) -> Iterable[tuple[Path, str, tuple[tuple[str, ...], str, str]]]:
    for controllers, group in _membership(root):
        if not controllers:
            yield _unified(root), group, (("memory.max", "memory.high"), "memory.current", "")
        elif "memory" in controllers:
            names = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")
            yield _version_1(root, "memory"), group, names


def _membership(root: Path) -> list[tuple[tuple[str, ...], str]]:
    """(controllers, group) from /proc/self/cgroup; the entry without controllers is version 2."""
    entries = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        entries.append((tuple(filter(None, controllers.split(","))), group))
    return entries


def _unified(root: Path) -> Path:
    """Where version 2 is mounted: beside the folders of version 1 on mixed systems."""
    mixed = root / "sys/fs/cgroup/unified"
    return mixed if mixed.is_dir() else root / "sys/fs/cgroup"


def _version_1(root: Path, controller: str) -> Path:
    return root / "sys/fs/cgroup" / controller


def _with_ancestors(base: Path, group: str) -> list[Path]:
    """The group's folder and those above it up to the mount. In a container the path may be that of the host and only
    the mount itself exist here; what does not exist reads as no limit."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    return [base.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _page_cache(path: Path, prefix: str) -> int:
    """Bytes of cached files in a memory.stat; version 1 puts "total_" before what counts the groups below too."""
    stat = dict(line.partition(" ")[::2] for line in _text(path).splitlines())
    found = [stat.get(f"{prefix}{kind}_file", "") for kind in ("active", "inactive")]
    return sum(int(value) for value in found if value.isdigit())


def _cpu_info(path: Path) -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    info: dict[str, str] = {}
    for line in _text(path).splitlines():
        key, colon, value = line.partition(":")
        if colon:
            info.setdefault(key.strip(), value.strip())
    return info


def _other_features() -> list[str]:
    """Where there is no /proc/cpuinfo: Apple silicon has NEON with dot products; of others nothing is claimed."""
    return ["neon", "asimddp"] if platform.system() == "Darwin" and platform.machine() == "arm64" else []


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
