"""What the comparisons share: finding a peer, opening our engine as `dsr chat` does, and reporting pairs."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.engine import Engine
from runtime.llama import LlamaBackend, OpenOptions


def peer(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not on PATH; tests/peers/README.md tells how to build it")
    return path


def run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


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
