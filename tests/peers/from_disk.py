"""Models larger than memory: dsr against llama.cpp's own program, on the same file, threads and memory, in turns.

    python tests/peers/from_disk.py [FOLDER] [--minutes N] [--quick] [--only CASE,...] [--out FILE]
    python tests/peers/from_disk.py [FOLDER] --texts 20

Linux, as root: each run has a control group of its own and an empty page cache. FOLDER holds the models, which
`from_disk_models.py` makes where they are missing, and what the runs wrote (`from-disk.json`, `from-disk.md`). Rounds
over all cases are repeated until the time is up; the first one is always complete. `--quick` takes four minutes.

llama.cpp runs as `llama-bench --repack 0 -lm mmap` (with repacking it copies the experts into memory and is killed).
dsr loads the model as `dsr chat` does, and measures the machine for its forecasts first. Both decode the same random
tokens, the first half to fill the memory. dsr has a profile of the skewed models' task (`dsr experts profile`), made of
a text: its forecast knows the skew from there, and its first choice of experts to keep.

`--texts` compares greedy texts: dsr with this little memory, and dsr with all weights in memory. Both keep the order
of the file: weights that the engine reorders for its faster kernels give other last digits.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from from_disk_group import Disk, Limits, Outcome, Program, restore_on_signals, run
from from_disk_models import made
from from_disk_table import Pair, tables

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache/dsr-peers"
_PROFILED = 2500  # characters, about 700 tokens
RUN = [sys.executable, str(Path(__file__).with_name("from_disk_run.py"))]


@dataclass(frozen=True, slots=True)
class Case:
    """`test` of a model that is `times` as large as the memory. `wanted`: the ratio to reach. `disk`: bytes/second."""

    name: str
    model: str
    times: float
    test: str
    tokens: int
    wanted: float
    read_ahead: int = 128
    disk: int | None = None
    quick: bool = False


CASES = (
    Case("uniform 2x", "uniform", 2, "decode", 24, 1.6, quick=True),
    Case("skewed 2x", "skewed", 2, "decode", 24, 2.2, quick=True),
    Case("uniform 4x", "uniform", 4, "decode", 24, 1.3),
    Case("skewed 4x", "skewed", 4, "decode", 24, 1.8),
    Case("uniform 2x: prompt of 512", "uniform", 2, "prompt", 512, 1.5, quick=True),
    Case("skewed 2x: prompt of 512", "skewed", 2, "prompt", 512, 1.5),
    Case("uniform 2x: eight votes against one", "uniform", 2, "votes", 16, 2.5),
    Case("skewed 2x: eight votes against one", "skewed", 2, "votes", 16, 2.5, quick=True),
    Case("dense 1.5x", "dense", 1.5, "decode", 8, 1.3, quick=True),
    Case("uniform: fits", "uniform", 1 / 3, "decode", 64, 0.97),
    Case("uniform 2x: read-ahead of 8 MiB", "uniform", 2, "decode", 6, 1.6, read_ahead=8192),
    Case("uniform 2x: 200 MB/s", "uniform", 2, "decode", 12, 1.6, disk=200_000_000),
    Case("uniform 2x: 2 GB/s", "uniform", 2, "decode", 24, 1.6, disk=2_000_000_000),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A run of one side. `extra`: what only dsr tells."""

    tokens_per_second: float
    bytes_per_token: float
    outcome: Outcome
    extra: dict[str, Any]


class Failed(Exception):
    """A program that gave no figure."""


class Bench:
    """The runs of a session. `home` is dsr's own folder: another one where the disk has another speed."""

    def __init__(self, folder: Path, bench: str) -> None:
        self._folder, self._bench = folder, bench
        for home in folder.glob("home-*"):  # the machine is measured again
            shutil.rmtree(home)
        self._profiled: set[str] = set()
        self._speeds: dict[int | None, float] = {}
        self._computing: dict[str, float] = {}

    def new_round(self) -> None:
        """Measure disk and computing again, since the machine's speed drifts."""
        self._speeds.clear()
        self._computing.clear()

    def limits(self, case: Case) -> Limits:
        return Limits(int(self.model(case).stat().st_size / case.times), case.disk)

    def model(self, case: Case) -> Path:
        return self._folder / f"{case.model}.gguf"

    def ours(self, case: Case, limits: Limits, **asked: Any) -> Measured:
        model, lines, errors = self.model(case), [], []
        whole = {"model": str(model), "test": case.test, "tokens": case.tokens, **asked}
        env = {"PYTHONPATH": str(ROOT), "DSR_HOME": str(self._folder / f"home-{limits.disk or 'free'}")}

        def on_line(_: Program, stream: str, line: str) -> None:
            (lines if stream == "out" and line.startswith("{") else errors).append(line)

        outcome = run([*RUN, json.dumps(whole)], model, limits, on_line, env=env)
        found = json.loads(lines[-1]) if lines else {}
        if "seconds" not in found and "speed" not in found:
            raise Failed(f"dsr ended with {outcome}: {found.get('error') or errors[-3:]}")
        if "speed" in found:
            return Measured(0, 0, outcome, found)
        count = found["tokens"]
        return Measured(count / found["seconds"], found["bytes_read"] / count, outcome, found)

    def profile(self, case: Case) -> None:
        """Profile the model on a text, as a person does whose task has its own experts."""
        if case.model != "skewed" or case.model in self._profiled:
            return
        self._profiled.add(case.model)
        text = self._folder / "task.txt"
        text.write_text((ROOT / "README.md").read_text(encoding="utf-8")[:_PROFILED], encoding="utf-8")
        command = [sys.executable, "-m", "dsr", "experts", "profile", str(self.model(case)), "-t", "1", "-q"]
        env = os.environ | {"PYTHONPATH": str(ROOT), "DSR_HOME": str(self._folder / f"home-{case.disk or 'free'}")}
        subprocess.run(
            [*command, "--text", str(text), "--task", "text"], env=env, check=True, stdout=subprocess.DEVNULL
        )

    def theirs(self, case: Case, limits: Limits) -> Measured:
        """The last repetition counts: the one before filled the memory. A prompt is read once, by both."""
        model, began, rows, errors = self.model(case), 0, [], []
        sizes = ["-p", str(case.tokens), "-n", "0", "-r", "1", "--no-warmup"]
        if case.test != "prompt":
            sizes = ["-p", "0", "-n", str(case.tokens), "-r", "2"]
        order = [] if case.times < 1 else ["--repack", "0", "-lm", "mmap"]

        def on_line(program: Program, stream: str, line: str) -> None:
            nonlocal began
            if " run " in line and "warmup" not in line:
                began = program.bytes_read()
            (rows if stream == "out" and line.startswith("{") else errors).append(line)

        command = [self._bench, "-m", str(model), "-t", "1", *sizes, *order, "-o", "jsonl", "--progress"]
        outcome = run(command, model, limits, on_line)
        if not rows:
            raise Failed(f"llama-bench ended with {outcome}: {errors[-3:]}")
        speed = float(json.loads(rows[-1])["samples_ts"][-1])
        return Measured(speed, (outcome.bytes_read - began) / case.tokens, outcome, {})

    def pair(self, case: Case, *, ours_first: bool) -> Pair:
        limits, warm = self.limits(case), 0 if case.test == "prompt" else case.tokens
        self.profile(case)
        with Disk(self.model(case)).reading_ahead(case.read_ahead):
            if case.test == "votes":
                sides = (
                    lambda: self.ours(case, limits, warm=warm // 4, votes=8),
                    lambda: self.ours(case, limits, warm=warm, votes=1),
                )
            else:
                sides = lambda: self.ours(case, limits, warm=warm), lambda: self.theirs(case, limits)
            found = [sides[n]() for n in ((0, 1) if ours_first else (1, 0))]
        first, second = found if ours_first else found[::-1]
        return Pair(
            asdict(case), limits.memory or 0, asdict(first), asdict(second), self.speed(case), self.computing(case)
        )

    def speed(self, case: Case) -> float:
        """Bytes per second of the disk under this limit, read as well as it can be."""
        if case.disk not in self._speeds:
            found = self.ours(replace(case, test="disk"), Limits(None, case.disk))
            self._speeds[case.disk] = found.extra["speed"]
        return self._speeds[case.disk]

    def computing(self, case: Case) -> float:
        """Seconds of a token with all weights in memory, in the order of the file; 0: not measured."""
        if case.test != "decode" or case.times < 1:
            return 0.0
        if case.model not in self._computing:
            # So many tokens have used nearly all experts: memory is slower when it is used for the first time.
            found = self.ours(replace(case, tokens=24), Limits(), warm=48, from_disk="off", repack=False)
            self._computing[case.model] = 1 / found.tokens_per_second
        return self._computing[case.model]


def compare(bench: Bench, cases: Sequence[Case], until: float, most: int) -> list[Pair]:
    """Rounds until the time is up. A case begins if it took less than the time that is left."""
    pairs: list[Pair] = []
    took: dict[str, float] = {}
    for number in range(most):
        bench.new_round()
        for case in cases:
            if number and time.monotonic() + took.get(case.name, 0) > until:
                continue
            began = time.monotonic()
            try:
                pair = bench.pair(case, ours_first=bool(number % 2))
            except Failed as failure:
                print(f"{case.name}: {failure}", flush=True)
                continue
            took[case.name] = time.monotonic() - began
            pairs.append(pair)
            print(f"{took[case.name]:4.0f} s  round {number + 1}  {pair.line()}", flush=True)
        if number and time.monotonic() + min(took.values(), default=0) > until:
            break
    return pairs


def texts(bench: Bench, count: int) -> bool:
    """Whether all runs with little memory say the same as one with all weights in memory, and none was killed."""
    cases = [replace(case, test="text", tokens=24) for case in CASES[:4]]
    cases += [replace(case, test="text", tokens=8) for case in CASES if case.model == "dense"]
    expected = {
        model: bench.ours(replace(cases[0], model=model), Limits(), from_disk="off", repack=False).extra["drawn"]
        for model in sorted({case.model for case in cases})
    }
    equal = kills = swapped = 0
    for number in range(count):
        case = cases[number % len(cases)]
        try:
            found = bench.ours(case, bench.limits(case), repack=False)
        except Failed as failure:
            kills += 1
            print(f"{number + 1}: {case.name}: {failure}", flush=True)
            continue
        same = found.extra["drawn"] == expected[case.model][: case.tokens]
        equal += same
        kills += found.outcome.kills
        swapped += found.outcome.swapped
        print(
            f"{number + 1}: {case.name}: {'the same' if same else 'another'} text, peak "
            f"{found.outcome.peak / 2**20:.0f} of {(bench.limits(case).memory or 0) / 2**20:.0f} MiB, "
            f"{found.outcome.kills} kills",
            flush=True,
        )
    print(f"{equal} of {count} texts are the same; {kills} runs were killed or failed; {swapped} bytes in swap")
    return equal == count and not kills and not swapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=CACHE / "from-disk")
    parser.add_argument("--minutes", type=float, default=19)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of the main cases, fewer tokens")
    parser.add_argument("--only", default="", help=", ".join(case.name for case in CASES))
    parser.add_argument("--tokens", type=int, help="decode so many tokens instead of each case's number")
    parser.add_argument("--texts", type=int, default=0, metavar="N")
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    program = shutil.which("llama-bench", path=f"{os.environ['PATH']}:{CACHE / 'bin'}")
    if program is None or os.geteuid() != 0:
        sys.exit("this needs root and llama-bench; tests/peers/README.md tells how to build it")
    restore_on_signals()
    made(given.folder, sorted({case.model for case in CASES}))
    bench = Bench(given.folder, program)
    if given.texts:
        sys.exit(0 if texts(bench, given.texts) else 1)
    wanted = given.only.split(",") if given.only else [case.name for case in CASES if case.quick or not given.quick]
    cases = [case for case in CASES if case.name in wanted]
    if given.quick:
        cases = [replace(case, tokens=case.tokens if case.test == "prompt" else min(case.tokens, 8)) for case in cases]
    if given.tokens:
        cases = [replace(case, tokens=given.tokens) if case.test != "prompt" else case for case in cases]
    pairs = compare(bench, cases, until, 1 if given.quick else given.rounds)
    (given.folder / "from-disk.json").write_text(json.dumps([asdict(each) for each in pairs], indent=1))
    page = tables(pairs)
    (given.folder / "from-disk.md").write_text(page)
    print(f"\n{page}\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
