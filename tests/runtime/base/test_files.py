from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.base.files import check_writable, remove_left_behind, write_atomically, write_stream

KILLED = """
import os, signal, sys
from pathlib import Path
from runtime.base import files
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(Path(sys.argv[1]), b"half")
"""


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


def test_a_file_may_be_for_its_owner_alone(tmp_path: Path) -> None:
    write_stream(tmp_path / "private", iter([b"x", b"y"]), mode=0o600, flush=False)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "private").read_bytes() == b"xy"


def test_pieces_that_fail_leave_the_old_content(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise ValueError

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ValueError):
        write_stream(tmp_path / "a", pieces())
    assert (os.listdir(tmp_path), (tmp_path / "a").read_bytes()) == (["a"], b"old")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_what_kills_left_in_a_folder_is_removed_but_not_what_is_in_use(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)

    def pieces() -> Iterator[bytes]:
        yield b"b"
        remove_left_behind(tmp_path)
        yield b"c"

    assert len(os.listdir(tmp_path)) == 1
    write_stream(tmp_path / "b", pieces())
    assert (os.listdir(tmp_path), (tmp_path / "b").read_bytes()) == (["b"], b"bc")


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


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_what_a_kill_left_is_removed_by_the_next_write_or_check(tmp_path: Path) -> None:
    target = tmp_path / "b[1].json"
    for again in (lambda: write_atomically(target, b"new"), lambda: check_writable(target)):
        subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
        left = {path.name for path in tmp_path.iterdir()} - {target.name}
        assert len(left) == 1 and left.pop().startswith(".b[1].json.")
        again()
        assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"new"


def test_files_in_use_and_files_of_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".b.json.swp").touch()
    (tmp_path / ".c.json.01234567").touch()
    (tmp_path / ".b.json.01234567").symlink_to("elsewhere")
    rename, within = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if not within:
            within.append(source)
            write_atomically(tmp_path / "b.json", b"another process's")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "b.json", b"mine")
    assert (tmp_path / "b.json").read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == [".b.json.01234567", ".b.json.swp", ".c.json.01234567", "b.json"]


@pytest.mark.skipif(os.name != "posix", reason="locks of files")
def test_a_temporary_file_that_another_took_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    taken: list[Path] = []
    lock = fcntl.flock

    def flock(file: int, how: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    write_atomically(tmp_path / "b.json", b"new")
    assert len(taken) == 1
    assert os.listdir(tmp_path) == ["b.json"]
