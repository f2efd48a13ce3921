"""Which files the cache of pruned files deletes for a new one."""

from __future__ import annotations

from pathlib import Path

from dsr.experts.pruned_cache import CachedFile, files_to_delete


def held(*sizes: int) -> list[CachedFile]:
    """Files named by their numbers, the first used first."""
    return [CachedFile(Path(str(number)), size, float(number)) for number, size in enumerate(sizes)]


def test_old_files_go_when_half_of_the_disk_would_be_theirs() -> None:
    assert files_to_delete([], 50, free=100) == ()
    assert files_to_delete([], 51, free=100) is None
    assert files_to_delete(held(20, 30), 25, free=100) == ()
    assert files_to_delete(held(20, 30), 26, free=100) == (Path("0"),)
    assert files_to_delete(held(20, 30), 75, free=100) == (Path("0"), Path("1"))
    assert files_to_delete(held(20, 30), 76, free=100) is None
    assert files_to_delete([CachedFile(Path("new"), 40, 9.0), CachedFile(Path("old"), 40, 1.0)], 40, free=100) == (
        Path("old"),
    )
