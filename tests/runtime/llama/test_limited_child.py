"""A child process within limits. Those on time and memory are tested with the trial of a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.base.run import Run
from runtime.llama import limited_child
from runtime.llama.limited_child import answer_of, run_child
from tests.runtime.native_engine import LIMITS


@pytest.mark.parametrize(
    ("said", "expected"),
    [(b'{"passed": true}', {"passed": True}), (b"", None), (b"[1]", None), (b"[" * 100_000, None), (b"\xff", None)],
)
def test_only_a_json_object_is_an_answer(said: bytes, expected: dict[str, object] | None) -> None:
    assert answer_of(said) == expected


def test_a_child_reads_its_input_and_its_exit_code_is_told(tmp_path: Path) -> None:
    body = "import sys; sys.stdout.write(sys.stdin.read(3)); sys.exit(3)"
    end = run_child([sys.executable, "-c", body], {}, tmp_path, LIMITS, Run(), job="testing", given=b"abc")
    assert (end.code, end.said, end.broke) == (3, b"abc", None)


def test_a_restricted_child_writes_no_file(tmp_path: Path) -> None:
    body = (
        "from runtime.llama import limited_child; import os; limited_child.restrict(1 << 30, 1)\n"
        "try: open({!r}, 'wb', 0).write(b'x'); said = b'written'\n"
        "except OSError: said = b'refused'\n"
        "os.write(1, said)"
    )
    child = [sys.executable, "-c", body.format(str(tmp_path / "f"))]
    end = run_child(child, {}, tmp_path, LIMITS, Run(), job="trying")
    assert end.said == b"refused"


def test_a_child_without_a_parent_ends() -> None:
    command = "import threading, time; from runtime.llama import limited_child; "
    command += "threading.Thread(target=limited_child.end_with_parent, daemon=True).start(); time.sleep(600)"
    child = subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, cwd=Path(limited_child.__file__).parents[2]
    )
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait() == 1
