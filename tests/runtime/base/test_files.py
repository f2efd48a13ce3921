from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.base.files import check_writable, write_atomically


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.json", b"one")
    write_atomically(tmp_path / "a" / "b.json", b"two")
    assert (tmp_path / "a" / "b.json").read_bytes() == b"two"
    assert os.listdir(tmp_path / "a") == ["b.json"]
    write_atomically(tmp_path / "a" / "b.json", b"thr", memoryview(b"ee"), b"")
    assert (tmp_path / "a" / "b.json").read_bytes() == b"three"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    target = tmp_path / "b.json"
    write_atomically(target, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["b.json"]


def test_an_interrupt_leaves_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "b.json", b"new")
    assert os.listdir(tmp_path) == []


def test_others_may_read_it_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "made").touch()
    write_atomically(tmp_path / "written", b"x")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "made").stat().st_mode


def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"old")
    check_writable(tmp_path / "there")
    check_writable(tmp_path / "new")
    assert os.listdir(tmp_path) == ["there"]
    assert (tmp_path / "there").read_bytes() == b"old"


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "b.json", tmp_path / ("b" * 250)):
        with pytest.raises(OSError) as writing:
            write_atomically(path, b"x")
        with pytest.raises(OSError) as checking:
            check_writable(path)
        assert type(checking.value) is type(writing.value)
        assert checking.value.errno == writing.value.errno
