"""Locks between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.base.lock import lock_path, try_lock

ROOT = Path(__file__).resolve().parents[3]
OWNER = """
import sys
from pathlib import Path
from runtime.base.lock import try_lock
lock = try_lock(Path(sys.argv[1]))
print(lock is not None, flush=True)
sys.stdin.read()
"""


def test_a_lock_has_one_holder_and_its_file_goes_with_the_release(tmp_path: Path) -> None:
    path = lock_path(tmp_path / "model.gguf")
    lock = try_lock(path)
    assert lock is not None
    assert try_lock(path) is None
    assert [each.name for each in tmp_path.iterdir()] == ["model.gguf.lock"]
    lock.release()
    assert list(tmp_path.iterdir()) == []
    again = try_lock(path)
    assert again is not None
    again.release()


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", OWNER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "True\n"
        assert try_lock(path) is None
        owner.kill()
    lock = try_lock(path)
    assert lock is not None
    lock.release()


def test_a_missing_folder_is_created_and_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "new" / "lock")
    assert lock is not None
    lock.release()
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        try_lock(tmp_path / "file" / "lock")
