"""Hostile checkpoints, thousands of them, of every class. Usage: hostile_checkpoints.py [--count N] [--seed N]
[--configs]: also every key of every class's config.json in every hostile value, without weights.

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
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from quant.convert.conversion import check_convertible, expected_tensors  # noqa: E402
from runtime.base.errors import DsrError  # noqa: E402
from tests.quant.hostile_checkpoints import Hostile, hostile, hostile_configs, outcome  # noqa: E402

_BATCH = 500
_MEMORY = 3 << 30
_SECONDS = 20


def too_slow(*_: object) -> None:
    raise TimeoutError(f"still busy after {_SECONDS} s")


def attempt(what: str, outcome_of: Callable[[], str]) -> str:
    """Returns "refused", "accepted", or a line that says how it failed."""
    signal.alarm(_SECONDS)
    try:
        return "refused" if outcome_of() else "accepted"
    except BaseException as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"FAILED {what}: {type(error).__name__}: {str(error)[:200]} ({at.filename}:{at.lineno})"
    finally:
        signal.alarm(0)


def converted(checkpoint: Hostile) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return outcome(checkpoint, Path(folder))


def laid_out(config: Callable[[], dict[str, Any]]) -> str:
    """The error, or "" where a config.json alone is accepted."""
    try:
        expected_tensors(config())
        check_convertible(config(), Path("config.json"))
    except DsrError as error:
        if "\n" in error.message or len(error.message) > 2000:
            raise AssertionError(f"not one line: {error.message[:300]!r}") from error
        return error.message
    return ""


Case = tuple[str, Callable[[], str]]


def batch(cases: list[Case]) -> list[str]:
    """Their endings, from a child process; a child that dies is a failure of the first one without an ending."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.signal(signal.SIGALRM, too_slow)
        with os.fdopen(writing, "w") as out:
            for each in cases:
                print(" ".join(attempt(*each).split()), file=out, flush=True)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        lines = answers.read().splitlines()
    _, status = os.waitpid(child, 0)
    if len(lines) < len(cases):
        lines.append(f"FAILED {cases[len(lines)][0]}: the process ended with {status}")
        lines += batch(cases[len(lines) :])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--configs", action="store_true")
    asked = parser.parse_args()
    started, lines = time.perf_counter(), list[str]()
    cases: Iterator[Case] = ((each.what, partial(converted, each)) for each in hostile(asked.count, asked.seed))
    if asked.configs:
        cases = chain(cases, ((what, partial(laid_out, config)) for what, config in hostile_configs()))
    while waiting := list(islice(cases, _BATCH)):
        lines += batch(waiting)
    failed = [line for line in lines if line.startswith("FAILED")]
    print(*failed, sep="\n")
    ends = collections.Counter(line for line in lines if not line.startswith("FAILED"))
    handled = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    seconds = time.perf_counter() - started
    print(f"tried {len(lines)}, handled {len(lines) - len(failed)} ({handled}), failed {len(failed)}; {seconds:.0f} s")
    sys.exit(1 if failed else 0)


main()
