"""Do the commands run on a tiny random model of every class that can be converted? The program itself, a process each.

    python tests/peers/every_class.py                    every model of tests/quant/configs/tiny
    python tests/peers/every_class.py NAME... --jobs 2   some, two at a time
    python tests/peers/every_class.py --without size     without the measured allocation, which takes most of the time

Of each model: `quantize -r q4_k_m`, `quantize --size`, `quantize --dry-run` of its config.json alone, `show`, `plan`,
`chat`, `bench speed`; where layers for multi-token prediction are kept, a chat that drafts with them; where there are
experts, `experts profile`, `show` and `prune`. A row says ok, or which command failed and its first line; the exit
status is 1 if one did. Takes ten to twenty seconds for each model. The weights are random, so the replies are noise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.quant.tiny_models import KEEPING, MODELS, config_of, make_tiny

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "tests" / "templates" / "qwen3-like.jinja"
# Of processor time, so that a busy machine fails nothing. The measured allocation reads 5,120 tokens up to 129 times:
# that takes 230 s for the 35 layers of Gemma 3n, and long for the indexer of DeepSeek V3.2.
SECONDS = 1200
# Of the size that q4_k_m gives: less than that recipe takes, and more than the smallest types whose blocks fit rows of
# 32 or 64 weights.
SHARE = 0.95
# What the engine cannot do, and dsr says: a limit and no failure.
LIMITS = ("the engine cannot draft with the MTP layers",)
STEPS = ("q4_k_m", "size", "dry-run", "show", "plan", "chat", "mtp", "bench", "profile", "experts", "prune")


@dataclass(frozen=True, slots=True)
class Ended:
    """How the commands of one model ended: names of steps; with the first line of the error where one failed, or where
    it told of a limit of the engine. `ran` are those that ran or failed."""

    name: str
    ran: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    limits: tuple[tuple[str, str], ...]

    @property
    def row(self) -> str:
        said = [f"{step}: {why}" for step, why in self.failed] or [f"ok: {', '.join(self.ran)}"]
        return f"{self.name:48} {'; '.join([*said, *(f'{step}: {why}' for step, why in self.limits)])}"


class Program:
    """dsr with a home of its own, and its compiled modules in `compiled`. Settings of this machine do not count."""

    def __init__(self, folder: Path, compiled: Path) -> None:
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "HF_", "PYTHON"))}
        own = {"DSR_HOME": folder / "home", "PYTHONPATH": ROOT, "PYTHONPYCACHEPREFIX": compiled}
        self._environment = kept | {name: str(path) for name, path in own.items()}

    def fault(self, *arguments: str | Path) -> str:
        """The first line of an error; "" where the command succeeds."""
        done = subprocess.run(
            ["prlimit", f"--cpu={SECONDS}:{SECONDS + 1}", sys.executable, "-m", "dsr", *map(str, arguments)],
            cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return ""
        if done.returncode == -signal.SIGXCPU:
            return f"no end after {SECONDS} s of processor time"
        lines = done.stderr.strip().splitlines() or ["no word"]
        said = next((line for line in lines if line.startswith("error:")), lines[-1])
        return f"exit code {done.returncode}: {said.replace(str(self._folder), '.')[:160]}"


def steps(name: str, *, experts: bool) -> Iterator[tuple[str, tuple[str | Path, ...]]]:
    """The commands of one model, run where its checkpoint is. The first makes a file for the others."""
    keep = ("--keep-mtp",) if name in KEEPING else ()
    again = ("--allow-requantize",) if "quantization_config" in config_of(name) else ()
    one = ("-t", "1")
    chat = ("chat", "q4.gguf", "-p", "hi", "-n", "8", "-c", "256", "--template", TEMPLATE, *one)
    yield "q4_k_m", ("quantize", "checkpoint", "q4.gguf", "-r", "q4_k_m", *keep, *again, *one)
    yield "size", ("quantize", "checkpoint", "sized.gguf", "--size", "SIZE", *keep, *again, *one)
    yield "dry-run", ("quantize", "config", "-r", "q4_k_m", "--dry-run", *keep, *again)
    yield "show", ("show", "q4.gguf")
    yield "plan", ("plan", "q4.gguf")
    yield "chat", chat
    if keep:
        yield "mtp", (*chat, "--draft", "mtp")
    yield "bench", ("bench", "speed", "q4.gguf", "-p", "8", "-n", "4", "--vote", "2", "-r", "1", "--no-log", *one)
    if experts:
        yield "profile", ("experts", "profile", "q4.gguf", "--text", TEMPLATE, "--task", "template", *one)
        yield "experts", ("experts", "show", "q4.gguf")
        yield (
            "prune",
            ("experts", "prune", "q4.gguf", "out.gguf", "--task", "template", "--keep", "50%", "--allow-harm"),
        )


def run(name: str, compiled: Path, wanted: tuple[str, ...] = STEPS) -> Ended:
    """Run the commands of one model that are in `wanted`. `compiled` keeps Python's compiled modules."""
    ran: list[str] = []
    failed: list[tuple[str, str]] = []
    limits: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_tiny(name, folder / "checkpoint")
        (folder / "config").mkdir()
        shutil.copy(folder / "checkpoint" / "config.json", folder / "config")
        program = Program(folder, compiled)
        for step, command in steps(name, experts=has_experts(name)):
            if step not in wanted:
                continue
            file = folder / "q4.gguf"
            size = f"{int(file.stat().st_size * SHARE)}B" if file.exists() else "SIZE"
            fault = program.fault(*(size if word == "SIZE" else word for word in command))
            if any(limit in fault for limit in LIMITS):
                limits.append((step, fault))
                continue
            ran.append(step)
            if fault:
                failed.append((step, fault))
            if fault and step == "q4_k_m":
                break  # the others need its file
    return Ended(name, tuple(ran), tuple(failed), tuple(limits))


def has_experts(name: str) -> bool:
    """Whether the model routes tokens to experts, by the table of its family."""
    from quant.convert.conversion import expected_tensors

    return any(tensor.is_expert_stack for tensor in expected_tensors(config_of(name)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--without", nargs="*", default=[], choices=STEPS[1:])
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    asked = parser.parse_args()
    wanted = tuple(step for step in STEPS if step not in asked.without)
    wrong = 0
    with tempfile.TemporaryDirectory() as compiled, ThreadPoolExecutor(asked.jobs) as pool:
        for ended in pool.map(partial(run, compiled=Path(compiled), wanted=wanted), asked.names):
            print(ended.row, flush=True)
            wrong += bool(ended.failed)
    print(f"{len(asked.names) - wrong} of {len(asked.names)} models: every command runs")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
