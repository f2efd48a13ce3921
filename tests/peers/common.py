"""What the comparisons share: finding a peer, opening our engine as `dsr chat` does, and reporting pairs."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.engine.engine import Engine
from runtime.llama import LlamaBackend, OpenOptions


def peer(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not on PATH; tests/peers/README.md tells how to build it")
    return path


def run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def llama_bench(bench: str, model: Path, threads: int, *sizes: str) -> float:
    """Tokens per second of one test, measured once: "-p", "512", "-n", "0"."""
    command = [bench, "-m", str(model), *sizes, "-t", str(threads), "-r", "1", "-o", "json"]
    return float(json.loads(run(command))[0]["avg_ts"])


def llama_batched_bench(
    bench: str, model: Path, threads: int, *, prompt: int, tokens: int, sequences: int
) -> tuple[float, float]:
    """Tokens per second of all sequences together behind a shared prompt, and the processor time of the process."""
    row, spent = batched_bench(bench, model, threads, prompt=prompt, tokens=tokens, sequences=sequences, shared=True)
    return float(row["speed_tg"]), spent


def batched_bench(
    bench: str, model: Path, threads: int, *, prompt: int, tokens: int, sequences: int, shared: bool
) -> tuple[dict[str, Any], float]:
    """The row that llama-batched-bench prints for one run, and its processor time. `speed` counts every token."""
    sizes = ["-npp", str(prompt), "-ntg", str(tokens), "-npl", str(sequences), "-c", "4096"]
    command = [bench, "-m", str(model), *sizes, "-t", str(threads), "--output-format", "jsonl"]
    command += ["-pps"] if shared else []
    # Its log is written by a thread that the process does not wait for: now and then the row is lost.
    for _ in range(9):
        before = _processor_time_of_children()
        lines = run(command).splitlines()
        spent = _processor_time_of_children() - before
        for line in lines:
            if line.startswith("{"):
                return json.loads(line), spent
    raise SystemExit("llama-batched-bench printed no row")


def _processor_time_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Unending(LlamaBackend):
    """A model that never ends its reply, so that both sides decode the same number of tokens."""

    def ends(self, token: int) -> bool:
        return False


def opened(model: Path, *, threads: int, slots: int = 1, context: int = 2048) -> tuple[Unending, Engine]:
    backend = Unending(model, OpenOptions(context=context, slots=slots, threads=threads))
    return backend, Engine(backend)


def report(what: str, ours: list[float], theirs: list[float], unit: str, peer: str = "llama.cpp") -> None:
    """One line per pair and the median of the ratios: a drift of the machine's speed is the same within a pair."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    for a, b, ratio in zip(ours, theirs, ratios, strict=True):
        print(f"  dsr {a:9.1f}   {peer} {b:9.1f} {unit}   ratio {ratio:.3f}")
    middle = statistics.median
    print(
        f"{what}: median ratio {middle(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}) "
        f"of {len(ratios)} pairs; medians {middle(ours):.1f} and {middle(theirs):.1f} {unit}; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    )
