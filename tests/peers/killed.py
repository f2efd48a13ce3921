"""End commands that write files at random moments, and look at what is there after each time.

    python tests/peers/killed.py [WORK...] [--count 300] [--signal KILL] [--seed N]

The works are quantize, convert, imatrix, bench, chat and pull, each by the real command with files of the test suite.
An undisturbed run gives the reference and its length. Then the same command is started again and again and ended by
the signal after a random part of that length. After each time nothing but the reference's bytes may stand under a
final name, and what dsr keeps (rows of benches, conversations) must be readable. The last run is left alone: it must
exit with 0, also after all the ends before it, and lead to the reference. Exits with 1 if anything was wrong.
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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hub_server import HubServer
from tests.quant import tiny

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "dsr" / "data" / "nano.gguf"


@dataclass(frozen=True)
class Work:
    """A command whose `outputs`, found in its folder, always have the same bytes; `reads` must succeed at any time."""

    command: Sequence[str]
    outputs: str | None = None
    reads: Sequence[str] | None = None


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

    def pull(folder: Path) -> Work:
        hub = stack.enter_context(HubServer())
        hub.add("org/killed-GGUF", {"killed-Q4_1.gguf": NANO.read_bytes()})
        hub.bytes_per_second = 1 << 20
        os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=str(folder / "hub"), NO_PROXY="127.0.0.1")
        return Work(("pull", "org/killed-GGUF:Q4_1", "-q"), "hub/hub/models--*/snapshots/*/*.gguf")

    return {
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
            **os.environ, "DSR_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)
        }  # fmt: skip
        self.said = ""

    def run(self, count: int) -> list[str]:
        """What was wrong."""
        problems: list[str] = []
        started = time.perf_counter()
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
            if child.returncode not in (0, -self._signal, 130) or b"Traceback" in said:
                problems.append(f"exit code {child.returncode} after {after:.2f} s: {said.decode()[-400:]}")
            problems += self._unreadable()
            if over and made != wanted:
                problems.append(f"finished without {wanted.keys() - made.keys()}")
            if made == wanted:
                self._forget()  # also where the end came after the last rename
        last = self._start()
        _, said = last.communicate()
        if last.returncode or self._made() != wanted:
            problems.append(f"the last run: exit code {last.returncode}, {said.decode(errors='replace')[-400:]}")
        left = [path.name for path in self._folder.iterdir() if path.name.startswith(".")]
        self.said = (
            f"{ended} ended within {length:.1f} s each (exit codes {sorted(codes)}), {finished} finished,"
            f" {len(left)} temporary files left"
        )
        return problems

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dsr", *self._work.command],
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


if __name__ == "__main__":
    main()
