"""Does `dsr bench quality` find what llama-perplexity --kl-divergence finds, and in what time?

    python tests/peers/quality.py BASE MODEL... --text TEXT [--chunks N] [--ctx N] [--threads N] [--rounds N]

In each round dsr measures all models in one command, then llama-perplexity writes its base file and reads it once for
each model. Wall time and processor time of both, children included, stand side by side; on a busy machine the second
tells more.

Two differences are known. llama-perplexity does not read special tokens that are spelled in a text, and we do: take a
text without. Its file of base logits has 16 bits for the 16 nats below each row's largest and nothing beyond: its base
perplexity suffers when a text surprises the model, and the ratio of perplexities with it (so both are taken from what
it prints while it writes the file); and it may see ties for the top token where there are none.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

_NUMBER = r"\s*(-?[\d.]+)"
# Name in our JSON, the name of its standard error, theirs, and what theirs is multiplied by.
_FIGURES = (
    ("ppl", "ppl_stderr", r"Mean PPL\(Q\)\s*:", 1.0),
    ("kld_mean", "kld_stderr", "Mean    KLD:", 1.0),
    ("kld_median", "kld_stderr", "Median  KLD:", 1.0),
    ("kld_90", "", "90.0%   KLD:", 1.0),
    ("kld_95", "", "95.0%   KLD:", 1.0),
    ("kld_99", "", "99.0%   KLD:", 1.0),
    ("kld_max", "", "Maximum KLD:", 1.0),
    ("top1_agreement", "top1_stderr", "Same top p:", 0.01),
    ("probability_rms", "probability_rms_stderr", r"RMS Δp\s*:", 0.01),
)


@dataclass(frozen=True)
class Ran:
    said: str
    wall: float
    processor: float


def run(command: Sequence[str]) -> Ran:
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(list(command), capture_output=True, text=True)
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Ran(done.stdout + ("" if "--json" in command else done.stderr), wall, processor)


def whole(command: Sequence[str], last: str) -> Ran:
    """llama-perplexity sometimes ends before its log is written to the end: then once more."""
    while last not in (ran := run(command)).said:
        print(f"  {Path(command[-1]).name}: llama-perplexity did not say {last!r}: once more", flush=True)
    return ran


def theirs(text: str, label: str) -> float:
    found = re.search(label + _NUMBER, text)
    if not found:
        sys.exit(f"llama-perplexity did not say {label}: {text[-2000:]}")
    return float(found[1])


def compare(ours: Mapping[str, Any], text: str, base_perplexity: float, *, every: bool) -> tuple[float, float]:
    """The largest difference in standard errors of the figures that have one, and that of the KLD."""
    found = {}
    others = {name: (error, scale * theirs(text, label)) for name, error, label, scale in _FIGURES}
    others["ln_ppl_ratio"] = "ln_ppl_ratio_stderr", math.log(others["ppl"][1] / base_perplexity)
    for name, (error, other) in others.items():
        mine = ours[name]
        spread = ours[error] if error else 0.0
        within = abs(mine - other) / spread if spread else 0.0
        found[name] = within
        if every:
            told = f"{within:6.3f} standard errors" if spread else ""
            print(f"  {name:16} dsr {mine:12.6f}   llama.cpp {other:12.6f}   {mine - other:+.1e}  {told}")
    return max(found.values()), found["kld_mean"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    shape = ["--ctx-size", str(asked.ctx), "--chunks", str(asked.chunks), "-t", str(asked.threads)]
    ours_command = [sys.executable, "-m", "dsr", "bench", "quality", *map(str, asked.models), "--against"]
    ours_command += [str(asked.base), "--text", str(asked.text), *shape, "--json", "--no-log"]
    tool = common.peer("llama-perplexity")
    walls: tuple[list[float], list[float]] = [], []
    processors: tuple[list[float], list[float]] = [], []
    for number in range(asked.rounds):
        ours = run(ours_command)
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "base"
            command = [tool, "-f", str(asked.text), "-c", str(asked.ctx), "-b", str(min(asked.ctx, 512))]
            command += ["--chunks", str(asked.chunks), "-t", str(asked.threads), "--kl-divergence-base", str(kept)]
            first = whole([*command, "-m", str(asked.base)], "Final estimate")
            seconds = [whole([*command, "--kl-divergence", "-m", str(model)], "Same top p:") for model in asked.models]
        for pair, name in ((walls, "wall"), (processors, "processor")):
            pair[0].append(getattr(ours, name))
            pair[1].append(sum(getattr(each, name) for each in (first, *seconds)))
        if number == 0:
            said = json.loads(ours.said)
            print(f"{said['tokens']} tokens scored")
            base, other = said["reference"]["ppl"], theirs(first.said, "Final estimate: PPL =")
            print(f"perplexity of the base: dsr {base:.4f}, llama.cpp {other:.4f}")
            for row, each in zip(said["rows"], seconds, strict=True):
                worst, kld = compare(row, each.said, other, every=len(asked.models) <= 3)
                found = f"KLD {row['kld_mean']:.6f} ± {row['kld_stderr']:.6f}, off by {kld:.4f} standard errors"
                print(f"{Path(row['model']).name}: {found}; the worst figure by {worst:.3f}", flush=True)
    common.report("processor time", *processors, "s")
    common.report("wall time", *walls, "s")


main()
