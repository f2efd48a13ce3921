"""What does correcting the errors of rounding gain, at the same types and bytes?

    python tests/peers/rounding.py SOURCE FOLDER [--text FILE...] [--recipes q2_k,q3_k_m] [--effort best] [--tokens N]
        [--all] [--threads N]

Collects second moments (of the built-in text, or of files) into FOLDER/moments, then writes each recipe twice: rounded
plainly, with the diagonals of the same moments as importance matrix, and with --round. Both are compared with SOURCE by
KL divergence on the built-in held-out problems (--all: on the conversations, too), each conversation in an empty
context and every token counted. The standard error takes a conversation as one draw.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsr.quantize.decide import decide, weighted
from dsr.quantize.moments import collect, importance_of
from dsr.quantize.quantize import _rounded
from quant.measure import texts
from quant.measure.chunks import Text
from quant.measure.moments import sequences
from quant.recipe.recipe import load
from quant.round.moments import source_digest
from quant.sources.source import GgufSource
from quant.write.execute import prepare, write
from runtime.base.run import Run
from runtime.base.texts import read_text
from runtime.gguf.reader import read_card
from runtime.llama import Scorer

PROBLEMS = Path(texts.__file__).parent / "held_out" / "problems.txt"


def held_out(source: Path, every: bool) -> list[Text]:
    problems = PROBLEMS.read_text(encoding="utf-8")
    found = zip(texts.HELD_OUT.conversations(), texts.HELD_OUT.each_for_model(read_card(source)), strict=True)
    return [text for item, text in found if every or item.messages[-1].content in problems]


def logits(path: Path, parts: Sequence[Sequence[int]], threads: int) -> list[np.ndarray]:
    with Scorer(path, window=2048, run=Run(threads=threads)) as model:
        return [np.concatenate([block.copy() for block in model.score(part)]) for part in parts]


def log_probabilities(rows: np.ndarray) -> np.ndarray:
    shifted = rows.astype(np.float64) - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def divergence(base: list[np.ndarray], other: list[np.ndarray]) -> tuple[float, float, float]:
    """The mean over tokens, its standard error, and the share of tokens with the same most likely one."""
    sums, counts, same = [], [], 0
    for one, two in zip(base, other, strict=True):
        p, q = log_probabilities(one), log_probabilities(two)
        sums.append(float((np.exp(p) * (p - q)).sum()))
        counts.append(len(p))
        same += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
    mean = sum(sums) / sum(counts)
    spread = np.sqrt(np.square(np.array(sums) - mean * np.array(counts)).sum()) / sum(counts)
    return mean, float(spread), same / sum(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, action="append", default=[])
    parser.add_argument("--recipes", default="q2_k,q3_k_m,q4_k_m")
    parser.add_argument("--effort", choices=("fast", "best"), default="best")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    asked.folder.mkdir(exist_ok=True)
    run = Run(threads=asked.threads)
    given = [Text(path.name, read_text(path)) for path in asked.text]
    with GgufSource(asked.source) as source:
        digest = source_digest(source)
        moments = collect(asked.source, digest, given, asked.tokens, asked.folder / "moments", run)
        print(f"moments of {moments.index.tokens} tokens", flush=True)
        with Scorer(asked.source, window=2048, run=run) as model:
            parts = sequences(model, held_out(asked.source, asked.all), 2048)
        base = logits(asked.source, parts, asked.threads)
        print(f"{len(parts)} conversations, {sum(map(len, parts))} tokens", flush=True)
        with_importance, _ = weighted(source, importance_of(moments), moments.folder)
        for name in asked.recipes.split(","):
            plain = decide(with_importance, load(name))
            found = []
            for label, decision in (
                ("plain", plain),
                (asked.effort, _rounded(plain, asked.effort, moments, None)),
            ):
                out = asked.folder / f"{name}-{label}.gguf"
                job = prepare(with_importance, decision.plan, out, allow_requantize=True, moments=moments)
                write(job, run, force=True)
                found.append(divergence(base, logits(out, parts, asked.threads)))
                mean, spread, same = found[-1]
                print(f"{name} {label}: KLD {mean:.5f} ± {spread:.5f}, same top {same:.2%}", flush=True)
            print(f"{name}: ratio {found[1][0] / found[0][0]:.3f}", flush=True)


if __name__ == "__main__":
    main()
