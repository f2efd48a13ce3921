"""Fills the generated parts of the README from the program: `python tests/readme.py` (or `make docs`).

Between `<!-- help: NAME -->` and `<!-- end -->` stands what `dsr NAME --help` prints at 80 columns; under
`<!-- transcript -->` what the command in its first line prints.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
_BLOCK = re.compile(r"<!-- (help: ([\w ]+)|transcript) -->\n(.*?)<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """The README with its generated parts made anew."""
    return _BLOCK.sub(_block, text)


def _block(match: re.Match[str]) -> str:
    command = match[2]
    if command is None:
        [asked] = re.findall(r"^\$ dsr (.*)$", match[3], re.MULTILINE)
        body = f"$ dsr {asked}\n{_output(shlex.split(asked))}"
    else:
        body = _output([*([] if command == "dsr" else command.split()), "--help"])
    return f"<!-- {match[1]} -->\n```\n{body}```\n<!-- end -->"


def _output(arguments: list[str]) -> str:
    """What a terminal of 80 columns would show: stderr and stdout together."""
    with tempfile.TemporaryDirectory() as home:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "HF_"))}
        environment = {**kept, "COLUMNS": "80", "NO_COLOR": "1", "DSR_HOME": home, "HF_HOME": home}
        return subprocess.run(
            [sys.executable, "-m", "dsr", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        ).stdout


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
