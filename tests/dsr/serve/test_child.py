"""Processes that the server starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dsr.serve.child import child_command, child_environment


def test_files_of_the_folder_in_which_dsr_runs_are_no_modules(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('run')\n")
    ended = subprocess.run(
        child_command("dsr", "--version"), env=child_environment(), cwd=tmp_path, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_the_key_of_the_server_stays_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_API_KEY", "secret")
    assert "secret" not in child_environment().values()
