"""Predicted memory against the engine's own breakdown, for a model of every architecture. No weights are written.

    python tests/peers/breakdown.py                      every architecture and variant
    python tests/peers/breakdown.py gemma4 deepseek4     some
    python tests/peers/breakdown.py --files A.gguf       files, for instance real models

Weights and caches must be equal to the byte, but for 32 bytes around a tensor. Buffers may differ by 3 %; the table
marks the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# (context, slots, type of the cache, windowed layers keep everything)
CASES = ((4096, 1, "f16", False), (4096, 4, "q8_0", False), (16384, 1, "f16", True), (32768, 8, "f16", False))
NEAR = 0.03
MIB = 1 << 20
_PADDING = 32  # bytes: TENSOR_ALIGNMENT of ggml


@dataclass(frozen=True)
class Compared:
    """Bytes predicted and bytes of the engine."""

    weights: tuple[int, int]
    cache: tuple[int, int]
    buffers: tuple[int, int]
    tensors: int

    @property
    def exact(self) -> bool:
        mine, its = self.weights
        return self.cache[0] == self.cache[1] and mine <= its <= mine + _PADDING * self.tensors

    @property
    def off(self) -> float:
        return self.buffers[0] / self.buffers[1] - 1


def main() -> int:
    from tests.every_architecture import ARCHITECTURES, VARIANTS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[*ARCHITECTURES, *VARIANTS])
    parser.add_argument("--files", action="store_true", help="the models are GGUF files")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return show(asked.models[0], files=asked.files)
    print(f"{'model':40} {'case':18} {'weights':>12} {'cache':>12} {'buffers':>21}  off by")
    wrong, far, rows = 0, 0, 0
    for model in asked.models:
        command = [sys.executable, __file__, "--one", *(["--files"] if asked.files else []), model]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            print(f"{model:40} the engine refuses it: {(done.stderr.strip().splitlines() or ['?'])[-1][:120]}")
        lines = done.stdout.splitlines()
        rows += len(lines)
        wrong += sum("not equal" in line for line in lines) + bool(done.returncode)
        far += sum(line.endswith("!") for line in lines)
    print(f"{rows} comparisons: {wrong} with other weights or caches, {far} with buffers that are off by more than 3 %")
    return 1 if wrong else 0


def show(model: str, *, files: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(model) if files else _written(model, Path(folder))
        for case in CASES:
            try:
                found = compare(path, *case)
            except Exception as error:  # the engine has its limits, too: no quantized cache for Grok
                print(f"{model:40} {_named(case):18} {error}")
                continue
            equal = f"{'equal':>12} {'equal':>12}" if found.exact else f"not equal: {found.weights} {found.cache}"
            mine, its = (size / MIB for size in found.buffers)
            mark = "" if abs(found.off) <= NEAR else "  !"
            print(f"{model:40} {_named(case):18} {equal} {mine:9.2f} {its:9.2f} M {found.off:+7.1%}{mark}")
    return 0


def compare(path: Path, context: int, slots: int, kv_type: str, full: bool) -> Compared:
    """The whole model on one machine. The engine is asked without memory."""
    from runtime.gguf.card import layer_count
    from runtime.gguf.reader import read_card
    from runtime.llama import OpenOptions
    from runtime.llama.memory_breakdown import breakdown
    from runtime.placement.cache import CacheOptions, cache_bytes
    from runtime.placement.cache_shape import cache_shape
    from runtime.placement.memory import part_sizes
    from tests.every_architecture import counted_besides

    card = read_card(path)
    sizes = part_sizes(card, context, slots, kv_type, kv_full=full)
    every = range(layer_count(card))
    whole = sizes.need(every, every, head=True, local=True)
    caches = cache_bytes(cache_shape(card), CacheOptions(context, slots, kv_type, full))
    its = breakdown(path, OpenOptions(context=context, slots=slots, kv_type=kv_type, kv_full=full))
    if its is None:
        raise RuntimeError("this engine does not tell its memory")
    return Compared(
        (whole.weights, sum(use.weights for use in its) - counted_besides(card)),
        (sum(caches), sum(use.kv_cache for use in its)),
        (whole.compute - sizes.sampling_buffer - sizes.program, sum(use.compute for use in its)),
        len(card.tensors),
    )


def _written(model: str, folder: Path) -> Path:
    from tests.every_architecture import VARIANTS, write_model

    architecture, changes = VARIANTS.get(model, (model, {}))
    return write_model(architecture, folder / "hollow.gguf", **changes)


def _named(case: tuple[int, int, str, bool]) -> str:
    context, slots, kv_type, full = case
    return f"{context} x{slots} {kv_type}{' full' if full else ''}"


if __name__ == "__main__":
    sys.exit(main())
