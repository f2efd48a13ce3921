"""Kills a process that writes a file, at random moments."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path


def kill_writers(code: str, arguments: list[str], out: Path, wanted: bytes, *, times: int) -> None:
    """Run `code` so many times and kill it each time. What stands at `out` then is `wanted`, or nothing.

    `code` prints a line for each of its events."""
    chance = random.Random(4)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    for _ in range(times):
        with subprocess.Popen(
            [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            for _ in range(chance.randrange(1, 40)):
                child.stdout.readline()
            time.sleep(chance.uniform(0, 0.02))
            child.kill()
        assert not out.exists() or out.read_bytes() == wanted
