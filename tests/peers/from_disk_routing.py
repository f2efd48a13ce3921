"""How mixtures route: is the skewed model of `from_disk_models.py` like nano on one task?

    python tests/peers/from_disk_routing.py [MIXTURE...] [--tokens N]

A mixture reads random tokens; nano (always last) reads questions of its tasks and its own answers to them. For each:

- hottest quarter, half: share of the picks of the most used quarter and half of the experts of a layer, mean of layers
- as before: share of a token's experts that the token before it chose, too
- by chance: the same if tokens chose independently with these frequencies
- foreseen: share of a layer's experts that its router names if it is asked with the input of the layer before
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models.library import find
from quant.sources.source import GgufSource
from runtime.base.run import Run
from runtime.base.types import Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.llama.graph import GraphNode, Observer

ROOT = Path(__file__).resolve().parents[2]
_QUESTIONS = 16  # of each task


@dataclass(frozen=True, slots=True)
class Reading:
    """One text: by layer the experts that each token chose, (tokens, used), and the router's input, (tokens, width)."""

    chosen: dict[int, NDArray[np.int32]]
    inputs: dict[int, NDArray[np.float32]]


def readings(model: Path, texts: Sequence[Sequence[int]]) -> list[Reading]:
    """Each text fits one pass of 512 tokens."""
    now = Reading({}, {})

    def wants(node: GraphNode) -> bool:
        return node.name.startswith(("ffn_moe_topk-", "ffn_moe_logits-"))

    def sees(node: GraphNode) -> bool:
        layer = int(node.name.split("-")[1])
        if "topk" in node.name:
            now.chosen[layer] = node.values()[0, 0].copy()
        else:
            now.inputs[layer] = node.source(1).values()[0, 0].copy()
        return True

    found = []
    with Observer(model, wants, sees, window=512, run=Run(threads=1)) as observer:
        for tokens in texts:
            now = Reading({}, {})
            for _ in observer.observe(tokens):
                pass
            found.append(now)
    return found


def foreseen(model: Path, read: Sequence[Reading]) -> float:
    """The next router's weights, applied to a layer's input: share of the experts that it names. `ffn_norm` differs."""
    with GgufSource(model, "") as source:
        known = {tensor.name: tensor for tensor in source.tensors}

        def weights(name: str) -> Any:
            return source.read(known[name], 0, known[name].rows) if name in known else None

        layers, shares = sorted(read[0].chosen), []
        for layer, following in pairwise(layers):
            norms = [weights(f"blk.{each}.ffn_norm.weight") for each in (following, layer)]
            router = weights(f"blk.{following}.ffn_gate_inp.weight")
            bias = weights(f"blk.{following}.exp_probs_b.bias")
            for each in read:
                scores = (each.inputs[layer] * norms[0] / norms[1]) @ router.T
                if bias is not None:
                    scores = 1 / (1 + np.exp(-scores)) + bias
                used = each.chosen[following].shape[1]
                named = np.argsort(-scores, 1)[:, :used]
                shares.append(_alike(named, each.chosen[following]))
    return float(np.mean(shares))


def _alike(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(np.mean([len({*a} & {*b}) / len(a) for a, b in zip(first, second, strict=False)]))


def describe(name: str, read: Sequence[Reading], experts: int, seen_early: float) -> tuple[float, ...]:
    rows = []
    for layer in read[0].chosen:
        chosen = [each.chosen[layer] for each in read]
        counts = np.sort(np.bincount(np.concatenate([each.ravel() for each in chosen]), minlength=experts))[::-1]
        picks, used = counts.sum(), chosen[0].shape[1]
        often = counts / (picks / used)
        rows.append(
            (
                counts[: experts // 4].sum() / picks,
                counts[: experts // 2].sum() / picks,
                np.mean([_alike(each, each[1:]) for each in chosen]),
                (often**2).sum() / used,
            )
        )
    quarter, half, before, chance = (float(each) for each in np.mean(rows, 0))
    show(name, quarter, half, before, chance, seen_early)
    return quarter, half, before, chance, seen_early


def show(name: str, quarter: float, half: float, before: float, chance: float, seen_early: float) -> None:
    print(
        f"{name:20s} hottest quarter {quarter:.2f}, half {half:.2f}; as before {before:.2f}, by chance {chance:.2f}; "
        f"foreseen {seen_early:.2f}"
    )


def nano_texts() -> dict[str, list[list[int]]]:
    """Questions of each task of the profile, with the answers that nano draws."""
    asked: dict[str, list[str]] = {}
    for line in (ROOT / "dsr/data/suites/nano-profile.jsonl").read_text().splitlines():
        row = json.loads(line)
        asked.setdefault(row["task"], []).append(row["question"])
    texts = {}
    with load(find("nano"), LoadOptions(2048).for_samples(8, 200), Run(threads=1)) as model:
        engine = Engine(model.backend)
        for task, questions in asked.items():
            params = SamplingParams(max_tokens=200, temperature=0.6)
            requests = [model.request([Message("user", each)], params) for each in questions[:_QUESTIONS]]
            drawn = engine.generate(requests)
            texts[task] = [[*a.prompt.tokens, *b.tokens] for a, b in zip(requests, drawn, strict=True)]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixture", type=Path, nargs="*")
    parser.add_argument("--tokens", type=int, default=300)
    given = parser.parse_args()
    for path in given.mixture:
        with GgufSource(path, "") as source:
            experts, vocabulary = source.card.experts, source.card.vocab_size
        read = readings(path, np.random.default_rng(17).integers(3, vocabulary, (2, given.tokens)).tolist())
        describe(path.stem, read, experts, foreseen(path, read))
    nano = find("nano")
    rows = []
    for task, texts in nano_texts().items():
        read = readings(nano.path, texts)
        rows.append(describe(f"nano, {task}", read, nano.card.experts, foreseen(nano.path, read)))
    means = [float(each) for each in np.mean(rows, 0)]
    show("nano, mean of tasks", means[0], means[1], means[2], means[3], means[4])


if __name__ == "__main__":
    main()
