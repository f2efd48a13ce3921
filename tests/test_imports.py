"""Help is instant: it loads nothing that is slow to load. Each case is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "gguf", "httpx2", "huggingface_hub", "jinja2", "llama_cpp", "llguidance", "numpy", "prompt_toolkit", "psutil",
    "rich", "sqlite3",
}  # fmt: skip
# The program, with a list of what it has loaded left at the end of stderr.
RUN = """
import atexit, sys
atexit.register(lambda: sys.stderr.write("\\n" + " ".join({name.partition(".")[0] for name in sys.modules})))
from dsr.cli import main
main()
"""
COMMANDS = ("chat", "pull", "list", "show", "rm", "quantize", "imatrix", "history", "doctor")


def run(*arguments: str, **environment: str) -> tuple[str, set[str]]:
    """What was printed, and the top-level names of what was loaded."""
    child = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    talk, _, loaded = child.stderr.rpartition("\n")
    assert talk.strip() == ""
    return child.stdout, set(loaded.split())


def test_the_list_of_loaded_modules_can_be_believed() -> None:
    _, loaded = run("list", "--json")
    assert {"dsr", "runtime", "typer"} <= loaded
    text, loaded = run("doctor", "--json")
    assert text.startswith("{")
    assert {"llama_cpp", "numpy", "psutil"} <= loaded


def test_help_loads_nothing_heavy_and_names_every_command() -> None:
    text, loaded = run("--help")
    assert loaded & HEAVY == set()
    for command in COMMANDS:
        assert f"\n  {command} " in text


def test_version_loads_nothing_heavy() -> None:
    text, loaded = run("--version")
    assert text.startswith("dsr ")
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    text, loaded = run(command, "--help")
    assert text.startswith(f"Usage: dsr {command} ")
    assert loaded & HEAVY == set()
