"""Hostile checkpoints, thousands of them. Usage: hostile_checkpoints.py [--count N] [--seed N]

Prints how many were tried, handled (converted, planned or refused in one line) and failed, and each failure; exits with
1 if there is one. Batches run in child processes with at most 3 GiB of memory and 20 seconds for each checkpoint.
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.quant.hostile_checkpoints import Hostile, hostile, outcome  # noqa: E402

_BATCH = 100
_MEMORY = 3 << 30
_SECONDS = 20


def too_slow(*_: object) -> None:
    raise TimeoutError(f"still busy after {_SECONDS} s")


def attempt(checkpoint: Hostile) -> str:
    """Returns "refused", "accepted", or a line that says how it failed."""
    with tempfile.TemporaryDirectory() as folder:
        signal.alarm(_SECONDS)
        try:
            return "refused" if outcome(checkpoint, Path(folder)) else "accepted"
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            return f"FAILED {checkpoint.what}: {type(error).__name__}: {str(error)[:200]} ({at.filename}:{at.lineno})"
        finally:
            signal.alarm(0)


def batch(checkpoints: list[Hostile]) -> list[str]:
    """Their endings, from a child process; a child that dies is a failure of the first one without an ending."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.signal(signal.SIGALRM, too_slow)
        with os.fdopen(writing, "w") as out:
            for each in checkpoints:
                print(" ".join(attempt(each).split()), file=out, flush=True)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        lines = answers.read().splitlines()
    _, status = os.waitpid(child, 0)
    if len(lines) < len(checkpoints):
        lines.append(f"FAILED {checkpoints[len(lines)].what}: the process ended with {status}")
        lines += batch(checkpoints[len(lines) :])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=11)
    asked = parser.parse_args()
    started, lines = time.perf_counter(), list[str]()
    waiting: list[Hostile] = []
    for checkpoint in hostile(asked.count, asked.seed):
        waiting.append(checkpoint)
        if len(waiting) == _BATCH:
            lines += batch(waiting)
            waiting = []
    if waiting:
        lines += batch(waiting)
    failed = [line for line in lines if line.startswith("FAILED")]
    print(*failed, sep="\n")
    ends = collections.Counter(line for line in lines if not line.startswith("FAILED"))
    handled = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    seconds = time.perf_counter() - started
    print(f"tried {len(lines)}, handled {len(lines) - len(failed)} ({handled}), failed {len(failed)}; {seconds:.0f} s")
    sys.exit(1 if failed else 0)


main()
