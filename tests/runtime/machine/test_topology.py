"""What /sys tells of a processor, from folders that stand for it."""

from __future__ import annotations

from pathlib import Path

from runtime.machine.topology import largest_cache, numa_nodes, strong_cores


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
