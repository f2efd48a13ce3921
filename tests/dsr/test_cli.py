"""The last catch of the program: what the system lacks is one line and a code, and a bug is a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dsr.cli import Boundary


def run(error: Exception) -> tuple[int, str, BaseException | None]:
    app = typer.Typer(cls=Boundary)

    @app.command()
    def fails() -> None:
        raise error

    @app.command()
    def other() -> None:
        pass

    result = CliRunner().invoke(app, ["fails"])
    return result.exit_code, result.stderr, result.exception


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"), 1, "error: /a/b: Not a directory"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "error: too many files are open"),
        (OSError(errno.ENOSPC, "No space left", "/a"), 5, "error: the disk is full: /a: No space left"),
        (MemoryError(), 5, "error: there is not enough memory"),
        (RuntimeError("can't start new thread"), 5, "error: there is not enough memory"),
        (ImportError("x.so: failed to map segment from shared object"), 5, "error: there is not enough memory"),
    ],
)
def test_what_the_system_lacks_is_one_line_with_a_hint(error: Exception, code: int, line: str) -> None:
    found, said, _ = run(error)
    assert (found, said.splitlines()[0]) == (code, line)
    assert said.splitlines()[1].startswith("hint: ") and len(said.splitlines()) == 2


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ImportError("a bug"), KeyError("a bug"), OSError("a bug")])
def test_a_bug_is_a_traceback(error: Exception) -> None:
    assert run(error)[2] is error


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("limit", ["-n 8", "-v 200000"])
def test_tight_limits_of_the_system_are_no_traceback(limit: str, tmp_path: Path) -> None:
    command = f"ulimit {limit}; exec {sys.executable} -m dsr bench speed nano -t 1 -p 8 -n 2"
    environment = {**os.environ, "DSR_HOME": str(tmp_path), "COLUMNS": "200"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_the_first_screen_cuts_no_word_on_a_narrow_terminal() -> None:
    screens = {
        columns: subprocess.run(
            [sys.executable, "-m", "dsr"], capture_output=True, text=True, env={**os.environ, "COLUMNS": str(columns)}
        ).stdout
        for columns in (40, 80)
    }
    assert max(map(len, screens[40].splitlines())) <= 40
    assert screens[40].split() == screens[80].split()
    assert "  dsr list --fits                 see which models suit this machine\n" in screens[80]
