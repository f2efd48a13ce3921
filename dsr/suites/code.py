"""Judges code by a command in a sandbox (`runtime/confined/box.py`).

The working folder of the command has the problem's own files, `answer.py` with the first code block of the reply
(examples of use come later), or with the whole reply where it has no block, and `reply.txt` with the reply. The command
runs in a shell. Exit code 0 means right. `python` is the Python that dsr runs on, without dsr.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dsr.suites.problem import SuiteProblem
from runtime.confined.box import BoxLimits, python_folders, run_boxed

_BLOCK = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
LIMITS = BoxLimits(seconds=10.0, memory=1 << 30, files=64 << 20)


def code_of(reply: str) -> str:
    """Returns the first code block of a reply, or the whole reply."""
    match = _BLOCK.search(reply)
    return match[3] if match else reply


def passes(problem: SuiteProblem, reply: str) -> bool:
    """Returns whether the problem's command accepts a reply. Raises Incompatible where there is no sandbox."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    files = {**problem.files, "answer.py": code_of(reply), "reply.txt": reply}
    command = ["/bin/sh", "-c", f'PATH="{path}"; export PATH; {problem.command}']
    return run_boxed(command, files, LIMITS, python_folders()).code == 0
