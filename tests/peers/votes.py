"""Eight votes in one run of `dsr chat` against eight runs of one sample each: seconds on the clock, start-up included.

    python tests/peers/votes.py MODEL [--words N] [--tokens N] [--pairs N] [--threads N]

The prompt is a file of so many words (about 1,000 tokens by default). No vote is stopped early, every sample has the
same limit of tokens, and both sides take turns, so the ratio is what reading the prompt once and decoding together are
worth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOTES = 8
_TEXT = (
    "The harbour master wrote down every ship that came in with the tide, its name, its load and the hour, because the "
    "town had lost too much to forgetting. When the winter storms closed the strait he read the list aloud to the "
    "children, who learned from it where salt came from, how long a letter took, and why the price of rope rose. "
)


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dsr", "chat", *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--words", type=int, default=800)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    words = _TEXT.split()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "harbour.txt"
        file.write_text(" ".join(words[n % len(words)] for n in range(asked.words)))
        common = [asked.model, "What did the children learn? Tell it at length.", "-f", str(file), "--no-log", "-q"]
        common += ["-n", str(asked.tokens), "--threads", str(asked.threads), "--ctx-size", "8192"]
        together, apart = [], []
        for _ in range(asked.pairs):
            together.append(seconds([*common, "--seed", "1", "--vote", str(VOTES), "--set", "stop=none"]))
            apart.append(sum(seconds([*common, "--seed", str(1 + sample)]) for sample in range(VOTES)))
    ratios = sorted(a / b for a, b in zip(together, apart, strict=True))
    for a, b in zip(together, apart, strict=True):
        print(f"  together {a:7.1f} s   one after another {b:7.1f} s   ratio {a / b:.3f}")
    print(f"median ratio {ratios[len(ratios) // 2]:.3f} of {asked.pairs} pairs")


if __name__ == "__main__":
    main()
