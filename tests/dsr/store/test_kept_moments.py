"""The cache of second moments: which are deleted, and which are not."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dsr.store import kept_moments
from runtime.base.lock import try_lock


@pytest.fixture(autouse=True)
def _disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=7000))


def entry(name: str, size: int, used: float) -> Path:
    folder = kept_moments.place(name, "text", 1)
    folder.mkdir(parents=True)
    (folder / "blk.0.npy").write_bytes(bytes(size - 2))
    (folder / "moments.json").write_bytes(b"{}")
    os.utime(folder / "moments.json", (used, used))
    return folder


def test_each_source_text_and_number_of_tokens_has_its_place() -> None:
    assert kept_moments.place("a", "b", 1) == kept_moments.place("a", "b", 1)
    others = {kept_moments.place(*given) for given in (("a", "b", 1), ("a", "b", 2), ("a", "c", 1), ("b", "b", 1))}
    assert len(others) == 4


def test_the_least_recently_used_moments_make_room() -> None:
    old, new, own = entry("old", 1000, 1), entry("new", 2000, 2), entry("own", 50, 0)
    assert kept_moments.size() == 3050
    kept_moments.make_room(own, 2000)  # half of 7000 + 3000 in all
    assert [each.exists() for each in (old, new, own)] == [True, True, True]
    kept_moments.make_room(own, 2500)
    assert [each.exists() for each in (old, new, own)] == [False, True, True]


def test_moments_larger_than_the_share_take_the_place_of_all_others() -> None:
    first, own = entry("first", 1000, 1), entry("own", 50, 0)
    kept_moments.make_room(own, 6000)
    assert [each.exists() for each in (first, own)] == [False, True]


def test_moments_in_use_stay() -> None:
    used, own = entry("used", 1000, 1), entry("own", 50, 0)
    lock = kept_moments.take(used)
    assert lock is not None
    assert (used / "moments.json").stat().st_mtime > 1
    kept_moments.make_room(own, 6000)
    assert used.exists()
    lock.release()
    kept_moments.make_room(own, 6000)
    assert not used.exists()


def test_a_place_that_another_process_uses_is_used_too() -> None:
    used = entry("used", 10, 1)
    held = try_lock(used / ".lock")
    assert held is not None
    assert kept_moments.take(used) is None
    held.release()
    assert kept_moments.take(kept_moments.place("new", "text", 1)) is not None


def test_nothing_is_kept_at_first() -> None:
    assert kept_moments.size() == 0
