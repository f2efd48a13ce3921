"""Folders that are needed only meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quant.write.scratch import scratch_folder

ROOT = Path(__file__).resolve().parents[3]
OWNER = """
import sys
from pathlib import Path
from quant.write.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), ".large-") as folder:
    (folder / "model.gguf").write_bytes(b"1")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_gone_afterwards_and_so_is_what_it_held(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new", ".large-") as folder:
        (folder / "model.gguf").write_bytes(b"1")
        assert folder.parent == tmp_path / "new"
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path / "new", ".large-"):
        raise ZeroDivisionError
    assert names(tmp_path / "new") == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    for name in ("another", ".larger"):
        (tmp_path / name).mkdir()
    (tmp_path / ".large-file").write_bytes(b"1")
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    owner = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        owned = owner.stdout.readline().strip()
        with scratch_folder(tmp_path, ".large-") as folder:
            assert names(tmp_path) == sorted([".large-file", ".larger", "another", folder.name, owned])
        assert (tmp_path / owned / "model.gguf").exists()
        owner.send_signal(signal.SIGKILL)
    assert owned in names(tmp_path)
    with scratch_folder(tmp_path, ".large-"):
        assert owned not in names(tmp_path)
    assert names(tmp_path) == [".large-file", ".larger", "another"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").write_bytes(b"1")
    (tmp_path / ".large-link").symlink_to(tmp_path / "mine")
    with scratch_folder(tmp_path, ".large-"):
        pass
    assert names(tmp_path / "mine") == ["kept"]
