"""Measures all strategies on real models and writes what each is worth into docs/results.md. Stopped, it goes on.

    python tests/peers/strategies.py [MODEL...] [--suites S ...] [--limit N] [--hours H] [--strategies LIST]

Every model answers every suite by `dsr bench reason`, whose samples stay in build/results/strategies. A later run draws
only what is missing, so hours of computing come in pieces: after `--hours`, the bench is stopped as by Ctrl-C, and the
page has what there is. `--write FILE` is the document whose part "strategies" is replaced. Without a model: those that
`models.sh` fetched. Suites with gym: need the extra `gym`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests import sections  # noqa: E402
from tests.peers.strategies_page import page  # noqa: E402

MODELS = Path.home() / ".cache" / "dsr-peers" / "models"
NAMES = ("qwen2.5-coder-0.5b-q4_k_m.gguf", "gemma3-270m-q4_k_m.gguf")
# 120 questions of the set, ten of each task; 100 of gsm_symbolic, with a seed that nothing else here uses.
SUITES = ("gym:laptop=120", "gym:gsm_symbolic:seed=190=100")
_STOPPED = (130, -signal.SIGINT)  # the second one: before the program could listen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[str(MODELS / name) for name in NAMES])
    parser.add_argument("--suites", nargs="+", default=list(SUITES), help="SUITE=QUESTIONS")
    parser.add_argument("--limit", type=int, help="questions of every suite, in place of its own number")
    parser.add_argument("--strategies", default="all")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--temp", type=float, default=0.8)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--alone", type=int, default=12, help="questions for which each strategy runs alone")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--hours", type=float, default=240.0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "results" / "strategies")
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "results.md")
    asked = parser.parse_args()
    deadline = time.monotonic() + 3600 * asked.hours
    asked.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for suite in asked.suites:
        name, _, count = suite.rpartition("=")
        for model in asked.models:
            key = f"{Path(model).stem}-{name}-{asked.temp:g}-{asked.max_tokens}".replace(":", "-").replace(",", "-")
            command = [
                "bench", "reason", model, "--suite", name, "--limit", str(asked.limit or count), "--temp",
                str(asked.temp), "--samples", str(asked.samples), "--strategies", asked.strategies, "--max-tokens",
                str(asked.max_tokens), "--alone", str(asked.alone), "--slots", str(asked.slots), "--json", "--no-log",
                "--out", str(asked.out / key), *(["--threads", str(asked.threads)] if asked.threads else []),
            ]  # fmt: skip
            result = _run(command, max(deadline - time.monotonic(), 0.0))
            if result is None:
                continue
            result["command"] = "dsr " + shlex.join([Path(word).name if word == model else word for word in command])
            result["made"] = date.today().isoformat()
            found.append(result)
            own = "python tests/peers/strategies.py " + shlex.join(sys.argv[1:])
            sections.replace(asked.write, "strategies", page(found, own.strip()))
            sys.stderr.write(f"{asked.write}: {len(found)} of {len(asked.suites) * len(asked.models)} parts\n")


def _run(command: list[str], seconds: float) -> dict[str, Any] | None:
    """The object that the command prints, stopped after some seconds; None if it has nothing yet. Ends on an error."""
    if seconds <= 0:
        return None
    sys.stderr.write(f"dsr {shlex.join(command)}\n")
    process = subprocess.Popen([sys.executable, "-m", "dsr", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
    if process.returncode not in (0, *_STOPPED):
        sys.exit(process.returncode)
    result: dict[str, Any] = json.loads(said) if said.strip() else {}
    return result if result.get("schema") == "dsr.bench.reason/1" else None


if __name__ == "__main__":
    main()
