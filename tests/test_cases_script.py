"""`tests/peers/cases.py` counts what the checks of a folder say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "peers" / "cases.py"


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), str(folder), *options], capture_output=True, text=True)


def a_case(folder: Path, name: str, script: str) -> None:
    (folder / name).mkdir()
    (folder / name / "check.sh").write_text(script)


def test_every_check_gets_the_program_and_a_failure_decides_the_exit_code(tmp_path: Path) -> None:
    a_case(tmp_path, "right", '[ "$1" = /the/program ]')
    a_case(tmp_path, "wrong", "echo no answer; exit 3")
    done = run(tmp_path, "--dsr", "/the/program")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok") and lines[0].endswith("right")
    assert lines[1].startswith("FAIL") and lines[1].endswith("wrong: no answer")
    assert lines[2] == "1 of 2 right"
    assert run(tmp_path, "--dsr", "/the/program", "--except", "wrong").returncode == 0


def test_a_case_that_does_not_end_is_ended(tmp_path: Path) -> None:
    a_case(tmp_path, "endless", "sleep 1000")
    done = run(tmp_path, "--timeout", "0.2")
    assert done.returncode == 1 and "still running after 0.2 s" in done.stdout


def test_a_wrong_name_or_an_empty_folder_is_said(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 2
    a_case(tmp_path, "one", "true")
    done = run(tmp_path, "--except", "two")
    assert done.returncode == 2 and "no case two" in done.stderr
