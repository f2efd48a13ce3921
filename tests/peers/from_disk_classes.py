"""Logits of every tiny mixture of experts that runs from the disk, against the same model in memory.

    python tests/peers/from_disk_classes.py                      every class with routed experts
    python tests/peers/from_disk_classes.py Qwen3MoeForCausalLM  some
    python tests/peers/from_disk_classes.py --dense              all other classes, with every second layer on the disk

Each model is converted to F32. Memory holds the experts of one token in the largest layer, or half of all if that is
more. The logits of 24 tokens, read one by one and then all at once, must be those with all experts in memory, bit for
bit, and near those of the mapped file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

TOKENS, CONTEXT = 24, 512
NEAR = 1e-4  # relative to the largest logit: the mapped file multiplies in another order


def main() -> int:
    from tests.quant.tiny_models import MODELS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(compare(asked.models[0], dense=asked.dense))
        return 0
    counts = {"same": 0, "differs": 0, "fails": 0}
    for model in asked.models:
        command = [sys.executable, __file__, "--one", *(["--dense"] if asked.dense else []), model]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout.strip() if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1][:140]
        kind = "fails" if done.returncode else said.partition(" ")[0]
        if kind in counts:
            counts[kind] += 1
            print(f"{model:48} {said if kind != 'fails' else 'fails: ' + said}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 1 if counts["differs"] or counts["fails"] else 0


def compare(name: str, *, dense: bool) -> str:
    import numpy as np

    from quant.convert.conversion import source_of
    from quant.recipe.recipe import load, plan
    from quant.sources.checkpoint import open_checkpoint
    from quant.write.execute import quantize
    from runtime.base.run import Run
    from runtime.from_disk.units import FromDisk, units_of
    from runtime.gguf.card import layer_count
    from runtime.gguf.reader import read_card
    from runtime.llama import LlamaBackend, OpenOptions, StreamedBackend
    from tests.quant.tiny_models import KEEPING, make_tiny

    with tempfile.TemporaryDirectory() as temporary:
        folder, file = Path(temporary) / name, Path(temporary) / "tiny.gguf"
        make_tiny(name, folder)
        source = source_of(open_checkpoint(folder), keep_mtp=name in KEEPING)
        quantize(source, plan(load("f32"), source), file, Run(threads=1))
        card = read_card(file)
        units = units_of(card)
        if bool(units.stacks) == dense:
            return "skipped"
        layers = tuple(range(0, layer_count(card), 2)) if dense else ()
        units = units_of(card, layers)
        largest = max(units.sizes) + 8 * 4096 * (len(units.stacks) // len(units.layers) + 1)
        few = largest * (3 if dense else max(card.experts_used, units.count // 2))
        found = []
        for memory in (few, 1 << 40):
            options = OpenOptions(CONTEXT, from_disk=FromDisk(memory, layers))
            with StreamedBackend(file, options) as backend:
                found.append(logits(backend))
        with LlamaBackend(file, OpenOptions(CONTEXT)) as backend:
            mapped = logits(backend)
        scale = float(np.abs(mapped).max())
        off = float(np.abs(found[0] - mapped).max()) / scale
        same = np.array_equal(found[0], found[1]) and off < NEAR
        return f"{'same' if same else 'differs'} {card.architecture}: {len(units.layers)} layers, off by {off:.1e}"


def logits(backend: object) -> object:
    """[2 * TOKENS - ..., vocabulary]: of each token read alone, then of the last one of all read at once."""
    import numpy as np

    from runtime.engine.backend import Batch

    tokens = [int(each) for each in np.random.default_rng(0).integers(5, 60, TOKENS)]
    rows = []
    for position, token in enumerate(tokens):
        backend.decode(Batch([token], [position], [0], [0]))
        rows.append(backend._logits(0).copy())
    backend.trim(0, 0)
    start = 0
    while start < TOKENS:
        count = min(backend.batch_size, TOKENS - start)
        places = [*range(start, start + count)]
        backend.decode(Batch(tokens[start : start + count], places, [0] * count, [count - 1]))
        rows.append(backend._logits(count - 1).copy())
        start += count
    return np.array([*rows[:TOKENS], rows[-1]])


if __name__ == "__main__":
    sys.exit(main())
