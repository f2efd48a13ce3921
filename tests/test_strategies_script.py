"""`tests/peers/strategies.py` makes the part of docs/results.md about strategies, in pieces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.peers.strategies_page import outcomes, section

ROOT = Path(__file__).resolve().parents[1]


def difference(row: str, points: float, outcome: str) -> dict[str, Any]:
    share = points / 100
    return {"row": row, "difference": share, "low": share - 0.05, "high": share + 0.05, "outcome": outcome}


def row(label: str, accuracy: float, *, oracle: bool = False) -> dict[str, Any]:
    return {"row": label, "oracle": oracle, "problems": 120, "accuracy": accuracy, "low": accuracy - 0.1,
            "high": accuracy + 0.1, "tokens_mean": 210.4, "seconds_mean": 3.21}  # fmt: skip


FOUND: dict[str, Any] = {
    "model": "/m/small.gguf", "suite": "gym:laptop", "command": "dsr bench reason small.gguf", "made": "2026-12-01",
    "problems": 120, "samples": 8, "unfinished_samples": 3, "interrupted": False, "judged": 400,
    "judged_differently": [{}, {}], "skipped": [{"row": "budget", "why": "it does not think"}],
    "conditions": {"questions": "reasoning-gym 0.1.25", "temperature": 0.8, "max_tokens": 400},
    "rows": [row("greedy", 0.25), row("direct", 0.15), row("vote n=8", 0.35), row("phi", 0.05),
             row("pass@8 (oracle)", 0.5, oracle=True)],
    "comparisons": [
        {"row": "greedy", "references": [difference("direct", 10, "gains"), difference("vote n=8", -10, "loses")]},
        {"row": "direct", "references": [difference("greedy", -10, "loses"), difference("vote n=8", -20, "loses")]},
        {"row": "vote n=8", "references": [difference("direct", 20, "gains"), difference("greedy", 10, "gains")]},
        {"row": "phi", "references": [difference("direct", -10, "loses"), difference("greedy", -20, "loses")]},
    ],
    "ran_alone": [{**row("phi", 0.1), "problems": 12}],
    "tasks": [
        {"task": "gcd", "problems": 10, "by_row": {"greedy": 0.5, "direct": 0.25}, "right_sample_tokens": 80.0,
         "wrong_sample_tokens": None},
        {"task": "", "problems": 120, "by_row": {"greedy": 0.25, "direct": 0.15}, "right_sample_tokens": 90.0,
         "wrong_sample_tokens": 200.0},
    ],
}  # fmt: skip


def test_a_strategy_gains_here_or_loses_here() -> None:
    assert outcomes(FOUND) == ["**Gains here**: `greedy`, `vote n=8`.", "**Loses here**: `phi`."]


def test_the_page_has_references_costs_and_tasks() -> None:
    title, command, how, _, strategies, tasks = section(FOUND)
    assert (title, command) == ("## small on gym:laptop", "    dsr bench reason small.gguf")
    assert how == (
        "Made 2026-12-01. 120 questions by reasoning-gym 0.1.25, 8 samples each at temperature 0.8, at most 400 tokens;"
        " 3 samples reached the limit. The verifiers and dsr's own rule differ on 2 of 400 answers; the verifiers"
        " count. `budget` could not be run: it does not think."
    )
    lines = strategies.splitlines()
    assert lines[0].endswith("| minus one sample | minus greedy | minus `vote n=8` |")
    assert lines[3] == (
        "| **`direct`** | reference | 120 | 15.0 | 5 to 25 | 210 |  |  |  | -10.0 (-15.0 to -5.0) | "
        "-20.0 (-25.0 to -15.0) |"
    )
    assert lines[5].startswith("| `phi` | loses | 120 | 5.0 | -5 to 15 | 210 | 210 | 3.2 | -10.0 (-15.0 to -5.0) |")
    assert lines[6].startswith("| `pass@8 (oracle)` | oracle |")
    assert tasks.splitlines()[2] == "| gcd | 10 | 50 | 25 |  |  | 80 |  |"


def test_a_run_writes_its_part_and_the_next_one_goes_on(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text("# Before\n")
    script = [sys.executable, str(ROOT / "tests" / "peers" / "strategies.py"), "nano"]
    options = ["--suites", "errors:steps=2=2", "--strategies", "greedy,direct,vote:n=2:stop=none", "--samples", "2",
               "--max-tokens", "24", "--alone", "1", "--slots", "2", "--threads", "1", "--out", str(tmp_path / "out"),
               "--write", str(document)]  # fmt: skip
    nothing = subprocess.run([*script, *options, "--hours", "0"], capture_output=True, text=True)
    assert nothing.returncode == 0, nothing.stderr
    assert document.read_text() == "# Before\n"
    done = subprocess.run([*script, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = document.read_text()
    assert text.startswith("# Before\n") and "<!-- made: strategies -->" in text
    assert "## nano on errors:steps=2\n" in text and "| **`direct`** | reference | 2 |" in text
