"""Do perplexity, KL divergence and agreement equal those of llama-perplexity over the same text and chunks?

    python tests/peers/perplexity.py BASE MODEL TEXT [--chunks N] [--ctx N] [--threads N]

Two differences are known. llama-perplexity does not read special tokens that are spelled in a text, and we do: take a
text without. Its file of base logits has 16 bits for the 16 nats below each row's largest and nothing beyond: its base
perplexity suffers when a text surprises the model (compare with the one it prints while it writes the file), and it may
see ties for the top token where there are none.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import common

from quant.measure import PERCENTILES, Estimate, compare
from quant.reading import Reading, Text

_NUMBER = r"\s*(-?[\d.]+)"


def said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def estimate(text: str, label: str, scale: float = 1.0) -> Estimate:
    found = re.search(label + _NUMBER + r"\s*(?:±|\+/-)" + _NUMBER, text)
    assert found, label
    return Estimate(float(found[1]) * scale, float(found[2]) * scale)


def line(what: str, ours: Estimate, theirs: Estimate) -> None:
    print(
        f"{what:28} dsr {ours.value:11.6f} ± {ours.error:.6f}   llama.cpp {theirs.value:11.6f} ± {theirs.error:.6f}"
        f"   difference {ours.value - theirs.value:+.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    text = Text(asked.text.name, asked.text.read_text(encoding="utf-8").removesuffix("\n"))
    ours = compare(
        asked.base, asked.model, [text], Reading(context=asked.ctx, most=asked.chunks, threads=asked.threads)
    )
    shape = ["-c", str(asked.ctx), "-b", str(min(asked.ctx, 512)), "--chunks", str(asked.chunks)]
    with tempfile.TemporaryDirectory() as folder:
        kept = ["--kl-divergence-base", str(Path(folder) / "base"), "-f", str(asked.text), "-t", str(asked.threads)]
        tool = common.peer("llama-perplexity")
        first = said([tool, "-m", str(asked.base), *shape, *kept])
        second = said([tool, "-m", str(asked.model), *shape, *kept, "--kl-divergence"])
    line("perplexity of the base", ours.base_perplexity, estimate(first, "Final estimate: PPL ="))
    line("perplexity of the model", ours.perplexity, estimate(second, r"Mean PPL\(Q\)\s*:"))
    line("KL divergence", ours.kld, estimate(second, "Mean    KLD:"))
    line("same top token", ours.same_top, estimate(second, "Same top p:", 0.01))
    labels = ("Median ", "90.0% ", "95.0% ", "99.0% ", "99.9% ", "Maximum")
    for percent, label, value in zip(PERCENTILES, labels, ours.kld_percentiles, strict=True):
        found = re.search(label + r" *KLD:" + _NUMBER, second)
        assert found, label
        line(f"KL divergence, {percent} %", Estimate(value, 0), Estimate(float(found[1]), 0))
    print(f"{ours.tokens} tokens scored")


main()
