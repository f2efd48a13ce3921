"""End commands that write files at random moments, and look at what is there after each time.

    python tests/peers/killed.py [WORK...] [--count 300] [--signal KILL] [--seed N]

The works are quantize, size, convert, imatrix, profile, prune, bench, all, chat and pull, each by the real command with
files of the test suite.
An undisturbed run gives the reference and its length. Then the same command is started again and again and ended by
the signal after a random part of that length. After each time nothing but the reference's bytes may stand under a
final name, no process may be left, and what dsr keeps (rows of benches, conversations) must be readable. The last run
is left alone: it must exit with 0, also after all the ends before it, lead to the reference and leave no temporary file
and no lock. Exits with 1 if anything was wrong.
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
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hub_server import HubServer
from tests.quant import tiny

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "dsr" / "data" / "nano.gguf"

_MARK = "STARTED_BY_KILLED"


@dataclass(frozen=True)
class Work:
    """A command whose `outputs`, found in its folder, always have the same bytes; `reads` must succeed at any time.
    `before` runs once, undisturbed."""

    command: Sequence[str]
    outputs: str | None = None
    reads: Sequence[str] | None = None
    before: Sequence[str] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("works", nargs="*", metavar="WORK")
    parser.add_argument("--count", type=int, default=300, help="ends, divided among the works")
    parser.add_argument("--signal", default="KILL", choices=("KILL", "TERM", "INT", "HUP"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    number = signal.Signals[f"SIG{options.signal}"]
    wrong = 0
    with ExitStack() as stack:
        works = _works(stack)
        chosen = options.works or list(works)
        for name in chosen:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            trial = Trial(works[name](folder), folder, number, random.Random(f"{options.seed} {name}"))
            problems = trial.run(max(1, options.count // len(chosen)))
            print(f"{name:9} seed {options.seed}: {trial.said}; wrong: {len(problems)}", flush=True)
            for problem in problems[:10]:
                print(f"  {problem}")
            wrong += len(problems)
    sys.exit(bool(wrong))


def _works(stack: ExitStack) -> dict[str, Callable[[Path], Work]]:
    def convert(folder: Path) -> Work:
        checkpoint = folder / "checkpoint"
        tiny.llama(checkpoint)
        return Work(("quantize", str(checkpoint), "made.gguf", "--recipe", "bf16", "-q"), "made*.gguf")

    def size(folder: Path) -> Work:
        checkpoint = folder / "checkpoint"
        tiny.llama(checkpoint)
        return Work(("quantize", str(checkpoint), "made.gguf", "--size", "120KB", "-q"), "made*.gguf")

    def pull(folder: Path) -> Work:
        hub = stack.enter_context(HubServer())
        hub.add("org/killed-GGUF", {"killed-Q4_1.gguf": NANO.read_bytes()})
        hub.bytes_per_second = 1 << 20
        os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=str(folder / "hub"), NO_PROXY="127.0.0.1")
        return Work(("pull", "org/killed-GGUF:Q4_1", "-q"), "hub/hub/models--*/snapshots/*/*.gguf")

    profile = ("experts", "profile", "nano", "--task", "addsub", "--limit", "2", "-n", "40", "-t", "1", "-q")
    prune = ("experts", "prune", "nano", "made.gguf", "--task", "addsub", "--keep", "8", "--allow-harm", "-q")
    each = ("bench", "all", "nano", "--limit", "2", "-n", "20", "--chunks", "1", "-t", "1", "-q")
    return {
        "profile": lambda _: Work(profile, "home/data/experts/*/*.gguf"),
        "prune": lambda _: Work(prune, "made*.gguf", before=profile),
        "all": lambda _: Work(
            (*each, "--strategies", "none", "--experts", "none"), reads=("bench", "history", "--json")
        ),
        "size": size,
        "quantize": lambda _: Work(
            ("quantize", str(NANO), "made.gguf", "--recipe", "q4_k_m", "--allow-requantize", "-q"), "made*.gguf"
        ),
        "convert": convert,
        "imatrix": lambda _: Work(
            ("imatrix", "nano", "-o", "made.gguf", "--chunks", "4", "-t", "1", "-q"), "made*.gguf"
        ),
        "bench": lambda _: Work(
            ("bench", "speed", "nano", "-p", "32", "-n", "8", "-r", "2", "-t", "1", "-q"),
            reads=("bench", "history", "--json"),
        ),
        "chat": lambda _: Work(("chat", "nano", "-n", "30", "-t", "1", "What is 3 + 4?"), reads=("history", "--json")),
        "pull": pull,
    }


class Trial:
    def __init__(self, work: Work, folder: Path, number: signal.Signals, chance: random.Random) -> None:
        self._work, self._folder, self._signal, self._chance = work, folder, number, chance
        self._environment = {
            **os.environ,
            "DSR_HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder),
            _MARK: str(folder),
        }
        self.said = ""

    def run(self, count: int) -> list[str]:
        """What was wrong."""
        problems: list[str] = []
        if self._work.before is not None:
            self._start(self._work.before).communicate()
        self._start().communicate()  # the first run of all also tries the model
        self._forget()
        started = time.perf_counter()
        first = self._start()
        _, said = first.communicate()
        length = time.perf_counter() - started
        if first.returncode:
            return [f"the undisturbed run failed: {said.decode(errors='replace').strip()}"]
        wanted = self._made()
        self._forget()
        ended = finished = 0
        codes: set[int] = set()
        while ended < count:
            child = self._start()
            after = self._chance.uniform(0, length)
            try:
                child.wait(after)
            except subprocess.TimeoutExpired:
                child.send_signal(self._signal)
            _, said = child.communicate()
            over = child.returncode == 0
            ended += not over
            finished += over
            codes.add(child.returncode)
            made = self._made()
            problems += [f"{name} is wrong after {after:.2f} s" for name, data in made.items() if wanted[name] != data]
            if child.returncode not in (0, -self._signal, 128 + self._signal) or b"Traceback" in said:
                problems.append(f"exit code {child.returncode} after {after:.2f} s: {said.decode()[-400:]}")
            problems += self._unreadable()
            if alive := self._alive():
                problems.append(f"after {after:.2f} s these live on: {alive}")
            if over and made != wanted:
                problems.append(f"finished without {wanted.keys() - made.keys()}")
            if made == wanted:
                self._forget()  # also where the end came after the last rename
        last = self._start()
        _, said = last.communicate()
        if last.returncode or self._made() != wanted:
            problems.append(f"the last run: exit code {last.returncode}, {said.decode(errors='replace')[-400:]}")
        problems += [f"{path.relative_to(self._folder)} is left" for path in self._folder.rglob("*") if _passing(path)]
        self.said = f"{ended} ended within {length:.1f} s each (exit codes {sorted(codes)}), {finished} finished"
        return problems

    def _alive(self) -> list[str]:
        """The command lines of processes that a command started and that are there five seconds after it."""
        until = time.monotonic() + 5
        while True:
            alive = []
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    if process.environ().get(_MARK) == str(self._folder):
                        alive.append(" ".join(process.cmdline())[:100])
            if not alive or time.monotonic() > until:
                return alive
            time.sleep(0.1)

    def _start(self, command: Sequence[str] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dsr", *(command or self._work.command)],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(self._work.outputs)) if self._work.outputs else []

    def _made(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self._files()}

    def _forget(self) -> None:
        for path in self._files():
            path.resolve().unlink()
            path.unlink(missing_ok=True)

    def _unreadable(self) -> list[str]:
        if self._work.reads is None:
            return []
        command = [sys.executable, "-m", "dsr", *self._work.reads]
        done = subprocess.run(command, cwd=self._folder, env=self._environment, capture_output=True, check=False)
        try:
            if done.returncode == 0:
                json.loads(done.stdout)
                return []
        except ValueError:
            pass
        return [f"{' '.join(self._work.reads)}: exit code {done.returncode}, {done.stderr.decode()[-400:]}"]


def _passing(path: Path) -> bool:
    """Whether a file may only be there while a command runs. A file in the hub cache's folder of locks is free again
    with its process, and every hub tool leaves some there."""
    if ".locks" in path.parts:
        return False
    hidden = path.name.startswith(".") and path.name != ".gitignore"
    return path.is_file() and (hidden or path.suffix in (".partial", ".journal", ".lock", ".part"))


if __name__ == "__main__":
    main()
