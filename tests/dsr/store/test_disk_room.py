"""Which files of a cache go when a new one needs their room."""

from __future__ import annotations

import os
from pathlib import Path

from dsr.store.disk_room import CachedFile, files_in, files_to_delete


def held(*sizes: int) -> list[CachedFile]:
    """Files named by their numbers, the first used first."""
    return [CachedFile(Path(str(number)), size, float(number)) for number, size in enumerate(sizes)]


def test_old_files_go_when_the_new_one_would_exceed_the_limit() -> None:
    assert files_to_delete([], 50, allowed=50) == ()
    assert files_to_delete([], 51, allowed=50) is None
    assert files_to_delete(held(20, 30), 25, allowed=75) == ()
    assert files_to_delete(held(20, 30), 26, allowed=75) == (Path("0"),)
    assert files_to_delete(held(20, 30), 75, allowed=75) == (Path("0"), Path("1"))
    assert files_to_delete(held(20, 30), 76, allowed=75) is None
    assert files_to_delete([CachedFile(Path("new"), 40, 9.0), CachedFile(Path("old"), 40, 1.0)], 40, allowed=90) == (
        Path("old"),
    )


def test_the_files_of_a_folder_are_those_of_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.state").write_bytes(b"123")
    (tmp_path / "b.other").write_bytes(b"1")
    (tmp_path / "c.state").mkdir()
    (tmp_path / "d.state").symlink_to(tmp_path / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "e.state")  # opening it would wait for ever
    assert [(each.path.name, each.size) for each in files_in(tmp_path, "*.state")] == [("a.state", 3)]
    assert files_in(tmp_path / "missing") == []
