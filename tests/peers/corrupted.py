"""Corrupted models, each in a `dsr chat` of its own. Usage: corrupted.py [--count N] [--seed N] [--jobs N] [--absurd]

Prints how they ended by exit code, and every one that did not end as it must; exits with 1 if there is one. --absurd
takes sound files whose metadata say absurd things instead. --headers N runs only our own checks of N files, in this
process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runtime.base.types import ByteCount  # noqa: E402
from tests.corrupted_chats import ARGUMENTS, Outcome, copies, header_problem, headers  # noqa: E402
from tests.corruption import absurd_models  # noqa: E402

_MEMORY = ByteCount(16 << 30)


def ended(folder: Path, what: str, copy: bytes) -> Outcome:
    path = folder / f"{what.replace(':', '').replace(' ', '-')[:60]}.gguf"
    path.write_bytes(copy)
    home = {"DSR_HOME": str(folder / "home"), "HF_HOME": str(folder / "hub")}
    command = [sys.executable, "-m", "dsr", "chat", str(path), *ARGUMENTS]
    try:
        child = subprocess.run(
            command, cwd=ROOT, env=os.environ | home, stdin=subprocess.DEVNULL, capture_output=True, timeout=100
        )
    except subprocess.TimeoutExpired:
        return Outcome(what, 999, "still running after 100 s")
    finally:
        path.unlink()
    return Outcome(what, child.returncode, child.stderr.decode("utf-8", "replace"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--absurd", action="store_true")
    parser.add_argument("--headers", type=int)
    asked = parser.parse_args()
    started = time.perf_counter()
    if asked.headers:
        files = headers(asked.headers, asked.seed)
        wrong = [f"{what}: {problem}" for what, data in files if (problem := header_problem(data, _MEMORY))]
        print(
            "\n".join([*wrong, f"{asked.headers} headers in {time.perf_counter() - started:.0f} s, {len(wrong)} wrong"])
        )
        sys.exit(1 if wrong else 0)
    chosen = absurd_models(asked.seed, asked.count) if asked.absurd else copies(asked.count, asked.seed)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = list(pool.map(lambda pair: ended(Path(folder), *pair), chosen))
    bad = [outcome for outcome in outcomes if outcome.problem]
    for outcome in bad:
        print(f"{outcome.what}: {outcome.problem}\n{outcome.stderr}")
    tally = ", ".join(f"{count} with {code}" for code, count in sorted(Counter(o.code for o in outcomes).items()))
    print(f"{len(outcomes)} copies in {time.perf_counter() - started:.0f} s: {tally}; {len(bad)} ended badly")
    sys.exit(1 if bad else 0)


main()
