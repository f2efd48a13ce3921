"""Limits of control groups, from folders that look like a machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.base.types import ByteCount
from runtime.machine.host import (
    Host,
    busy_cores,
    cgroup_cpus,
    cgroup_memory,
    free_disk,
    kernel_features,
    largest_cache,
    numa_nodes,
    probe,
    strong_cores,
)

GIB = 1 << 30


def machine_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_no_control_groups_no_limit(tmp_path: Path) -> None:
    assert cgroup_memory(tmp_path) is None
    assert cgroup_cpus(tmp_path) is None


def test_version_2(tmp_path: Path) -> None:
    root = machine_files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user/app",
            "sys/fs/cgroup/user/app/memory.max": str(8 * GIB),
            "sys/fs/cgroup/user/app/memory.current": str(5 * GIB),
            "sys/fs/cgroup/user/app/memory.stat": f"anon 1\ninactive_file {2 * GIB}\nactive_file {GIB}",
            "sys/fs/cgroup/user/app/cpu.max": "150000 100000",
        },
    )
    found = cgroup_memory(root)
    assert found is not None
    assert (found.limit, found.used) == (8 * GIB, 2 * GIB)
    assert "user/app/memory.max" in found.source
    assert cgroup_cpus(root) == 1.5


def test_version_2_without_a_limit(tmp_path: Path) -> None:
    root = machine_files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/memory.max": "max",
            "sys/fs/cgroup/memory.current": "5",
            "sys/fs/cgroup/cpu.max": "max 100000",
        },
    )
    assert cgroup_memory(root) is None
    assert cgroup_cpus(root) is None


@pytest.mark.parametrize(("high", "most", "name"), [("3", "8", "memory.high"), ("max", "8", "memory.max")])
def test_version_2_slows_a_process_above_memory_high(high: str, most: str, name: str, tmp_path: Path) -> None:
    root = machine_files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user/app",
            "sys/fs/cgroup/user/app/memory.max": most,
            "sys/fs/cgroup/user/app/memory.high": high,
            "sys/fs/cgroup/user/app/memory.current": "2",
        },
    )
    found = cgroup_memory(root)
    assert found is not None
    assert found.limit == (3 if high == "3" else 8)
    assert found.source.endswith(f"user/app/{name})")


def test_the_tightest_ancestor_counts(tmp_path: Path) -> None:
    root = machine_files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slice/app",
            "sys/fs/cgroup/slice/app/memory.max": str(8 * GIB),
            "sys/fs/cgroup/slice/app/memory.current": "0",
            "sys/fs/cgroup/slice/memory.max": str(4 * GIB),
            "sys/fs/cgroup/slice/memory.current": str(3 * GIB),
        },
    )
    found = cgroup_memory(root)
    assert found is not None
    assert (found.limit, found.used) == (4 * GIB, 3 * GIB)


def test_version_1_inside_a_container_that_shows_the_path_of_the_host(tmp_path: Path) -> None:
    root = machine_files(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n0::/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
            "sys/fs/cgroup/memory/memory.stat": f"active_file {GIB}\n"
            f"total_active_file {GIB // 4}\ntotal_inactive_file {GIB // 4}",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    found = cgroup_memory(root)
    assert found is not None
    assert (found.limit, found.used) == (2 * GIB, GIB // 2)
    assert cgroup_cpus(root) == 2.0


def test_version_1_without_a_limit(tmp_path: Path) -> None:
    root = machine_files(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu:/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert cgroup_memory(root) is None
    assert cgroup_cpus(root) is None


def test_the_features_that_matter() -> None:
    assert kernel_features(["fpu", "AVX2", "sse4_2", "fma", "vme"]) == ("sse4_2", "avx2", "fma")


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "not" / "yet") > 0


def test_this_machine(tmp_path: Path) -> None:
    host = probe(tmp_path)
    assert host.threads >= host.cores >= 1
    assert 0 < host.memory_available <= host.memory_total
    assert host.cpu
    assert host.disk_free > 0


def test_an_impossible_machine() -> None:
    with pytest.raises(ValueError, match="at least one core"):
        Host("p", "c", 0, 1, (), ByteCount(1), ByteCount(1), "m", ByteCount(0))
    with pytest.raises(ValueError, match="2 B of 1 B"):
        Host("p", "c", 1, 1, (), ByteCount(1), ByteCount(2), "m", ByteCount(0))


def test_busy_cores_are_counted_from_the_use_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 62.0)
    monkeypatch.setattr("psutil.cpu_count", lambda: 8)
    assert busy_cores() == 5


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / "sys/devices" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_where_nothing_is_told_a_machine_is_plain(tmp_path: Path) -> None:
    assert (largest_cache(tmp_path), numa_nodes(tmp_path), strong_cores(tmp_path)) == (0, 1, None)


def test_the_largest_cache(tmp_path: Path) -> None:
    cache = "system__cpu__cpu0__cache__index"
    write(tmp_path, **{f"{cache}0__size": "32K", f"{cache}2__size": "1M", f"{cache}3__size": "32768K"})
    write(tmp_path, **{f"{cache}4__size": "much"})
    assert largest_cache(tmp_path) == 32 << 20


def test_numa_nodes(tmp_path: Path) -> None:
    write(tmp_path, system__node__node0__x="", system__node__node1__x="", system__node__online="0-1")
    assert numa_nodes(tmp_path) == 2


def test_hybrid_cores_of_x86(tmp_path: Path) -> None:
    write(tmp_path, cpu_core__cpus="0-7,16", cpu_atom__cpus="8-15")
    assert strong_cores(tmp_path) == 9


def test_hybrid_cores_of_arm(tmp_path: Path) -> None:
    capacities = {f"system__cpu__cpu{n}__cpu_capacity": "1024" if n > 5 else "446" for n in range(8)}
    write(tmp_path, **capacities)
    assert strong_cores(tmp_path) == 2


def test_equal_cores_are_of_one_kind(tmp_path: Path) -> None:
    write(tmp_path, system__cpu__cpu0__cpu_capacity="1024", system__cpu__cpu1__cpu_capacity="1024")
    write(tmp_path, cpu_core__cpus="0-1")
    assert strong_cores(tmp_path) is None
