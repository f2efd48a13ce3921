"""Kill `dsr chat` while it writes the cache of its conversation, and look at what the next one finds.

    python tests/peers/killed_caches.py MODEL [--count 50] [--seed N] [--threads T]

Each run asks a new question about one long file, so it begins from the cache of an earlier run and writes a new one. It
is killed at a random moment of the writing; every fifth run at a random moment of all its time. After each kill
`dsr chat --resume` must answer with exit code 0, the history must be readable, every file under a final name must be
whole, and there may be at most one unfinished file and one lock. In the end an undisturbed run must leave neither, its
file must spare the reading of the long file, and its greedy answer must be the one without any cache. Exits with 1 if
anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.store.state_file import read_state
from runtime.base.errors import VerificationFailed

ROOT = Path(__file__).resolve().parents[2]
_LINES = 60  # of the file: about 1,000 tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(options.model.absolute(), Path(folder), options.threads, random.Random(options.seed))
        problems = trial.run(options.count)
    print(f"seed {options.seed}: {trial.said}; wrong: {len(problems)}")
    for problem in problems[:20]:
        print(f"  {problem}")
    sys.exit(bool(problems))


class Trial:
    def __init__(self, model: Path, folder: Path, threads: int, chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._options = (str(model), "--temp", "0", "-n", "4", "-c", "4096", "-t", str(threads))
        self._environment = {**os.environ, "DSR_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
        self._caches = folder / "home" / "cache" / "conversations"
        self._notes = folder / "notes.txt"
        words = (
            "seven",
            "wise",
            "men",
            "count",
            "silver",
            "coins",
            "near",
            "the",
            "river",
            "while",
            "a",
            "fox",
            "sleeps",
        )
        lines = (f"Entry {number}: {' '.join(chance.choices(words, k=12))}." for number in range(_LINES))
        self._notes.write_text("\n".join(lines))
        self._asked = 0
        self.said = ""

    def run(self, count: int) -> list[str]:
        """Returns what was wrong."""
        self._ask().communicate()  # tries the model, reads the file, writes the first cache
        whole, writing = self._undisturbed()
        problems, within, before, over = [], 0, 0, 0
        for number in range(count):
            child = self._ask()
            if number % 5 == 4:
                time.sleep(self._chance.uniform(0, whole))
                before += 1
            else:
                self._wait_until(self._unfinished, child)
                time.sleep(self._chance.uniform(0, writing))
                within += bool(self._unfinished())
            child.send_signal(signal.SIGKILL)
            child.communicate()
            over += child.returncode == 0
            problems += [f"kill {number + 1}: {each}" for each in self._wrong()]
        problems += self._last()
        self.said = (
            f"{count} kills, {within} while a file of {self._size() / 1e6:.0f} MB was unfinished, "
            f"{before} at any time, {over} came too late"
        )
        return problems

    def _undisturbed(self) -> tuple[float, float]:
        """The seconds of a whole run, and of the writing in it."""
        started = time.perf_counter()
        child = self._ask()
        self._wait_until(self._unfinished, child)
        began = time.perf_counter()
        self._wait_until(lambda: not self._unfinished(), child)
        writing = time.perf_counter() - began
        child.communicate()
        return time.perf_counter() - started, writing

    def _wait_until(self, done: Callable[[], object], child: subprocess.Popen[bytes]) -> None:
        while child.poll() is None and not done():
            time.sleep(0.0005)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dsr", *arguments]

    def _ask(self) -> subprocess.Popen[bytes]:
        """A question of about a hundred tokens, so that its cache is worth writing."""
        self._asked += 1
        question = " ".join(f"Tell me about entry {self._chance.randrange(_LINES)}." for _ in range(14))
        command = self._command("chat", *self._options, "-q", "-f", str(self._notes), f"{self._asked}. {question}")
        return subprocess.Popen(
            command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def _answer(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """The object of a run; {"error": ...} where it failed."""
        done = subprocess.run(
            self._command(*arguments, "--json"),
            env={**self._environment, **environment}, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode or b"Traceback" in done.stderr:
            return {"error": f"{arguments[0]}: exit code {done.returncode}, {done.stderr.decode()[-300:]}"}
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def _resume(self, **environment: str) -> dict[str, Any]:
        return self._answer("chat", *self._options, "--resume", "--no-log", "-p", "And then?", **environment)

    def _wrong(self) -> list[str]:
        problems = []
        resumed, listed = self._resume(), self._answer("history")
        problems += [each["error"] for each in (resumed, listed) if "error" in each]
        if resumed.get("tokens", {}).get("cached", 1000) < 500:
            problems.append(f"no cache is left: {resumed['tokens']}")
        unfinished = self._unfinished()
        locks = [path for path in self._caches.iterdir() if not path.name.endswith(".state") and path not in unfinished]
        if len(unfinished) > 1 or len(locks) > 1:
            problems.append(f"litter: {[path.name for path in (*unfinished, *locks)]}")
        for path in self._files():
            try:
                read_state(path, path.read_bytes()[28:60].hex())
            except VerificationFailed as error:
                problems.append(error.message)
        return problems

    def _last(self) -> list[str]:
        _, said = self._ask().communicate()
        left = [path.name for path in self._caches.iterdir() if path not in self._files()]
        warm, cold = self._resume(), self._resume(DSR_CACHE_LIMIT="0")
        problems = [f"the last run left {left}, said {said.decode()}"] if left or said else []
        problems += [each["error"] for each in (warm, cold) if "error" in each]
        if not problems and (warm["answer"] != cold["answer"] or cold["tokens"]["cached"]):
            problems.append(f"from the cache: {warm['answer']!r}; without: {cold['answer']!r}")
        return problems

    def _unfinished(self) -> list[Path]:
        return [*self._caches.glob(".*")]

    def _files(self) -> list[Path]:
        return [*self._caches.glob("[0-9]*.state")]

    def _size(self) -> int:
        return max((path.stat().st_size for path in self._files()), default=0)


if __name__ == "__main__":
    main()
