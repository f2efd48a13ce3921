"""DeepSeek-R1, 671B weights, from the disk of four homes: a forecast on paper, with routing that is replayed.

    python tests/peers/homes.py [--recipe ud-iq1_s] [--passes 160]

The machines are docs/machines/home-*.json; their speeds of computing are assumed. The header is the one that `dsr
quantize --recipe` would write for the real config.json. Nothing is downloaded or measured. The result: docs/results.md.

Routing, 58 layers with 256 experts of which a token uses 8, each token independent of the one before:
- equal: all experts alike.
- skewed: the weights of the experts in a draw are lognormal, so that the hottest quarter gets 0.73 of the picks, as
  with nano on one task (`from_disk_routing.py`). How R1 really routes is not known here.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsr.loading.machine import read_machine
from dsr.loading.options import LoadOptions
from dsr.plan.decide import decide
from dsr.plan.planned_model import PlannedModel
from dsr.quantize import decide as quantize
from quant.open_source import open_source
from quant.recipe import recipe
from runtime.base.types import ByteCount
from runtime.from_disk.policy import Frequency
from runtime.gguf.card import ModelCard
from tests.routing.replay import replay
from tests.routing.trace import Trace, of_tokens

ROOT = Path(__file__).resolve().parents[2]
HOMES = (32, 64, 128, 192)
_SKEW = 1.29  # standard deviation of the logarithms: the hottest quarter gets normal(_SKEW - 0.674) of the picks


def r1(name: str) -> ModelCard:
    """The header of R1 as a recipe makes it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "tests/quant/configs/deepseek-r1.json", Path(folder) / "config.json")
        with open_source(Path(folder), weights=False) as source:
            card = quantize.decide(source, recipe.load(name)).plan.card()
    assert card is not None
    return card


def routing(layers: int, experts: int, active: int, tokens: int, skew: float) -> Trace:
    """Each token draws `active` experts of a layer without repetition (Gumbel's trick)."""
    rng = np.random.default_rng(0)
    bias = rng.standard_normal((layers, experts)) * skew
    drawn = bias + rng.gumbel(size=(tokens, layers, experts))
    return of_tokens(np.argpartition(-drawn, active - 1, axis=2)[:, :, :active], experts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="ud-iq1_s")
    parser.add_argument("--passes", type=int, default=160)
    options = parser.parse_args()
    card = r1(options.recipe)
    print(f"{options.recipe}: {card.weights_size}, {card.bits_per_weight:.2f} bits per weight\n")
    traces: dict[str, Trace] = {}
    print(
        "| home | in memory | cache | context | hits: equal, formula | equal, replayed | skewed, replayed "
        "| read a token | by disk | by computing | tokens/s | twice the memory |"
    )
    print("| :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |")
    for gib in HOMES:
        machine = read_machine(ROOT / f"docs/machines/home-{gib}.json")
        plan = decide(PlannedModel("deepseek-r1:671b", "DeepSeek-R1", options.recipe, card), machine, LoadOptions())
        speed = plan.from_disk
        if speed is None:
            print(f"| {gib} GiB | {plan.memory} | fits | {plan.placement.request.context} | - | - | - | - | - "
                  f"| {plan.tokens_per_second:.2g} | {plan.tokens_per_second:.2g} | - |")  # fmt: skip
            continue
        layers = speed.plan.layers
        if not traces:
            shape = (len(layers), layers[0].experts, layers[0].used, options.passes)
            traces = {name: routing(*shape, skew) for name, skew in (("equal", 0.0), ("skewed", _SKEW))}
        size = sum(each.size for each in layers) / len(layers)
        capacity = int(speed.plan.memory / size)
        steps = []
        for trace in traces.values():
            policy = Frequency(trace.layers, trace.experts, trace.active)
            found = replay(trace, policy, capacity)
            late = slice(options.passes // 2, None)  # the cache is full by then
            hits = 1 - found.reads[late].sum() / found.needed[late].sum()
            read = speed.step.needed * (1 - hits)
            steps.append(replace(speed.step, read=read, disk_seconds=read / machine.disk_read))
        equal, skewed = steps
        print(
            f"| {gib} GiB, {machine.disk_read / 1e9:g} GB/s | {speed.plan.resident} | {speed.plan.memory} "
            f"| {speed.plan.context} | {speed.step.hit_rate:.0%} | {equal.hit_rate:.0%} | {skewed.hit_rate:.0%} "
            f"| {ByteCount(round(equal.read))} to {ByteCount(round(skewed.read))} "
            f"| {equal.disk_bound:.2g} to {skewed.disk_bound:.2g} | {equal.compute_bound:.2g} "
            f"| {equal.tokens_per_second:.2g} to {skewed.tokens_per_second:.2g} "
            f"| {speed.twice.tokens_per_second:.2g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
