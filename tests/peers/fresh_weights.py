"""Makes F16 weights that lie on no grid from a quantized file: the same model with its dimensions in another order.

    python tests/peers/fresh_weights.py IN.gguf OUT.gguf [--seed N] [--check] [--threads N]

Weights that were quantized before flatter a quantizer that finds the old grid again. Three kinds of dimensions may
change places without a change of what a dense model computes: those of the residual stream, those inside each
feed-forward layer, and the value dimensions of each key-value head. In random order, each block mixes the values of
many old blocks. `--check` prints the KL divergence from the weights in their old order: that of rounding to F16.

Llama, Qwen 2 and 3, Gemma 2 and 3, without experts. Any other tensor ends the script.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from quant.gguf.writer import layout, u32
from quant.sources.source import GgufSource, TensorSpec
from runtime.base.files import write_stream
from tests.peers import rounding_judge as judge

_F16 = 1  # general.file_type
Order = NDArray[np.intp]

# The dimensions of the rows and of the columns, by role; a vector has rows alone. "": the order stays, as rotary
# position embeddings need it in queries and keys.
_DIMENSIONS = {
    "token_embd": ("", "stream"),
    "output": ("", "stream"),
    "attn_q": ("", "stream"),
    "attn_k": ("", "stream"),
    "attn_v": ("values", "stream"),
    "attn_output": ("stream", "heads"),
    "ffn_gate": ("inner", "stream"),
    "ffn_up": ("inner", "stream"),
    "ffn_down": ("stream", "inner"),
    "attn_q_norm": ("", ""),
    "attn_k_norm": ("", ""),
    "rope_freqs": ("", ""),
    "output_norm": ("stream", ""),
    "attn_norm": ("stream", ""),
    "ffn_norm": ("stream", ""),
    "post_attention_norm": ("stream", ""),
    "post_ffw_norm": ("stream", ""),
}


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor of the file to write: F16 for a matrix, F32 for a vector."""

    spec: TensorSpec

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def target(self) -> str:
        return "F16" if len(self.shape) > 1 else "F32"


class Orders:
    """The new order of each kind of dimensions, drawn when it is first asked for. Without a generator the old one."""

    def __init__(self, source: GgufSource, rng: np.random.Generator | None) -> None:
        facts, name = source.card.metadata, source.architecture
        self._rng = rng
        self._width = int(facts[f"{name}.embedding_length"])
        self._heads = int(facts[f"{name}.attention.head_count"])
        self._kv_heads = int(facts.get(f"{name}.attention.head_count_kv", self._heads))
        self._head = int(facts.get(f"{name}.attention.value_length", self._width // self._heads))
        self._inner = int(facts[f"{name}.feed_forward_length"])
        self._drawn: dict[tuple[str, str], Order] = {}

    def of(self, kind: str, layer: str) -> Order:
        if kind == "heads":  # the query heads of a group read the same values
            first = np.arange(self._kv_heads)[:, None] * self._head
            within = self.of("values", layer).reshape(self._kv_heads, self._head) - first
            each = np.repeat(within, self._heads // self._kv_heads, axis=0)
            return np.asarray(each + np.arange(self._heads)[:, None] * self._head).reshape(-1)
        key = kind, "" if kind == "stream" else layer
        if key not in self._drawn:
            self._drawn[key] = self._draw(kind)
        return self._drawn[key]

    def _draw(self, kind: str) -> Order:
        if kind == "values":
            parts = [self._shuffled(self._head) + head * self._head for head in range(self._kv_heads)]
            return np.concatenate(parts)
        return self._shuffled({"stream": self._width, "inner": self._inner}[kind])

    def _shuffled(self, count: int) -> Order:
        return np.arange(count) if self._rng is None else self._rng.permutation(count)


def write_fresh(path: Path, out: Path, seed: int | None) -> None:
    """Write the model at `path` in F16 to `out`, in a random order; in the old order without a seed."""
    with GgufSource(path) as source:
        tensors = [Placed(spec) for spec in source.tensors]
        placed = layout([*source.metadata, u32("general.file_type", _F16)], tensors)
        orders = Orders(source, None if seed is None else np.random.default_rng(seed))

        def pieces() -> Iterator[bytes | memoryview]:
            yield placed.header
            at = len(placed.header)
            for tensor, offset in zip(tensors, placed.offsets, strict=True):
                yield bytes(offset - at)
                values = np.ascontiguousarray(_reordered(source, tensor.spec, orders))
                values = values.astype("<f2" if tensor.target == "F16" else "<f4")
                yield values.data.cast("B")
                at = offset + values.nbytes
            yield bytes(placed.size - at)

        write_stream(out, pieces())


def _reordered(source: GgufSource, spec: TensorSpec, orders: Orders) -> NDArray[np.float32]:
    part = spec.name.split(".")
    layer, role = (part[1], part[2]) if part[0] == "blk" else ("", part[0])
    if role not in _DIMENSIONS or len(spec.shape) > 2:
        sys.exit(f"{spec.name}: its dimensions are not known, shape {spec.shape}")
    rows, columns = _DIMENSIONS[role]
    values = source.read(spec, 0, spec.rows)
    if len(spec.shape) == 1:
        return values[:, orders.of(rows, layer)] if rows else values
    if rows:
        values = values[orders.of(rows, layer)]
    return values[:, orders.of(columns, layer)] if columns else values


def check(path: Path, fresh: Path, threads: int) -> judge.Loss:
    """The loss of the reordered weights against the same weights in the old order."""
    with tempfile.TemporaryDirectory(dir=fresh.parent) as folder:
        plain = Path(folder) / "plain.gguf"
        write_fresh(path, plain, None)
        texts = judge.held_out(plain, 1024)
        with judge.Reference(plain, texts, Path(folder), threads) as reference:
            return reference.loss(fresh)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    write_fresh(asked.source, asked.out, asked.seed)
    print(f"{asked.out}: {asked.out.stat().st_size} bytes")
    if asked.check:
        print(f"KL divergence from the old order: {check(asked.source, asked.out, asked.threads)}")


if __name__ == "__main__":
    main()
