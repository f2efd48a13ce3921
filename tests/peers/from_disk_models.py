"""Makes the models of `from_disk.py`: files of about 2 GB with random weights, written in seconds.

    python tests/peers/from_disk_models.py FOLDER [--tokenizer GGUF] [--only uniform,skewed,dense]

- uniform: a Qwen3-MoE of 24 layers with 64 experts, 8 for each token, Q4_0. Each token chooses afresh.
- skewed: the same sizes. A few experts get most picks, and neighbouring tokens choose alike, both as nano on one task.
- dense: a Llama of 30 layers, Q4_0.

A file that is there stays. `from_disk_routing.py` shows how the mixtures route, beside nano.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from quant.gguf.writer import KeyValue, Layout, f32, layout, text, u32
from quant.sources.source import GgufSource
from runtime.base.files import write_stream

TOKENIZER = Path.home() / ".cache/dsr-peers/models/smollm2-135m-q4_1.gguf"
_BLOCK, _BLOCK_BYTES, _STEP = 32, 18, 7  # of Q4_0: weights, bytes, the largest positive number of steps
_ZERO, _MOST = 0x88, 0xFF  # two weights of 0, two of 7 steps
# A uniform choice among the steps -7 to 7 has this standard deviation.
_SPREAD = float(np.sqrt(np.mean(np.arange(-7, 8) ** 2)))
# The first block of each token's embedding is the same in all. Nothing is added to it, so routers and attention have a
# constant input: a bias, which the architecture lacks.
_CONSTANT = 1.0
# Pairs of a rotary head of 64 whose angles grow by 0.03 to 0.12 per token (base 1e6): a query that equals each key
# then looks at about the last eight tokens.
_RECENT = (5, 6, 7, 8)
Rng = np.random.Generator
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` in ggml order. `data` returns the bytes piece by piece."""

    name: str
    shape: tuple[int, ...]
    target: str
    data: Callable[[], Iterator[Bytes]]


@dataclass(frozen=True, slots=True)
class Mixture:
    """`skew`: standard deviation of the experts' biases, in those of a router's logits. `recent`: attention looks at
    the last tokens only. `attention`, `experts_gain`: how much each layer adds, in standard deviations of an embedding.
    """

    skew: float = 0.0
    recent: bool = False
    attention: float = 0.1
    experts_gain: float = 0.1
    layers: int = 24
    width: int = 1024
    experts: int = 64
    used: int = 8
    expert_width: int = 768
    heads: int = 16
    kv_heads: int = 4
    head: int = 64


@dataclass(frozen=True, slots=True)
class Dense:
    layers: int = 30
    width: int = 2560
    feed_forward: int = 10240
    heads: int = 40
    kv_heads: int = 8


MODELS: dict[str, Mixture | Dense] = {
    # Found by trying. The hottest quarter gets 0.35 and 0.73 of the picks; nano on one task: 0.73. The router of the
    # next layer, asked a layer early, names 0.87 and 0.83 of the experts; nano: 0.77.
    "uniform": Mixture(attention=0.3, experts_gain=0.8),
    "skewed": Mixture(skew=0.41, recent=True, attention=0.85, experts_gain=0.85),
    "dense": Dense(),
}


class Weights:
    """Random Q4_0 matrices. They are cut out of one pool at random places, since drawing 2 GB takes a minute."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        pairs = self.rng.integers(0, 225, (2**22, 16), np.uint8)
        both = np.array([(first + 1) | (second + 1) << 4 for second in range(15) for first in range(15)], np.uint8)
        self._pool = np.empty((len(pairs), _BLOCK_BYTES), np.uint8)
        self._pool[:, 2:] = both[pairs]

    def matrix(self, columns: int, rows: int, gain: float = 1.0, quiet: int = 0) -> Bytes:
        """Inputs with a deviation of 1 give outputs with one of `gain`. The first `quiet` rows are 0."""
        count = rows * columns // _BLOCK
        start = int(self.rng.integers(0, len(self._pool) - count + 1))
        blocks = self._pool[start : start + count].copy()
        blocks[:, :2] = _half(gain / np.sqrt(columns) / _SPREAD)
        blocks[: quiet * columns // _BLOCK, 2:] = _ZERO
        return blocks.reshape(rows, -1)

    def embedding(self, columns: int, rows: int) -> Bytes:
        blocks = self.matrix(columns, rows, np.sqrt(columns)).reshape(rows, -1, _BLOCK_BYTES)
        blocks[:, 0, :2] = _half(_CONSTANT / _STEP)
        blocks[:, 0, 2:] = _MOST
        return blocks.reshape(rows, -1)

    def recent(self, columns: int, heads: int, head: int) -> Bytes:
        """Queries, or keys, that are the same for each token: they find the neighbours, not the content."""
        blocks = np.full((heads, head, columns // _BLOCK, _BLOCK_BYTES), _ZERO, np.uint8)
        blocks[..., :2] = _half(1.0)
        for pair in _RECENT:
            blocks[:, (pair, pair + head // 2), 0, 2:] = _MOST
        return blocks.reshape(heads * head, -1)

    def router(self, width: int, experts: int, bias: NDArray[np.float64]) -> Bytes:
        rows = self.rng.standard_normal((experts, width)) / np.sqrt(width)
        rows[:, :_BLOCK] = bias[:, None] / (_BLOCK * _CONSTANT)
        return _bytes(rows)


def _half(value: float) -> Bytes:
    return np.array([value], np.float16).view(np.uint8)


def _bytes(values: NDArray[np.float64]) -> Bytes:
    return values.astype(np.float32).view(np.uint8)


def _norm(name: str, width: int) -> Tensor:
    return Tensor(name, (width,), "F32", lambda: iter([_bytes(np.ones(width))]))


def _outside(weights: Weights, width: int, vocabulary: int) -> list[Tensor]:
    return [
        Tensor("token_embd.weight", (width, vocabulary), "Q4_0", lambda: iter([weights.embedding(width, vocabulary)])),
        _norm("output_norm.weight", width),
        Tensor("output.weight", (width, vocabulary), "Q4_0", lambda: iter([weights.matrix(width, vocabulary)])),
    ]


def mixture_tensors(model: Mixture, vocabulary: int, seed: int = 17) -> list[Tensor]:
    weights, width, head = Weights(seed), model.width, model.head
    tensors = _outside(weights, width, vocabulary)

    def add(name: str, shape: tuple[int, ...], make: Callable[[], Bytes], target: str = "Q4_0", times: int = 1) -> None:
        tensors.append(Tensor(name, shape, target, lambda: (make() for _ in range(times))))

    def attends(heads: int) -> Callable[[], Bytes]:
        if model.recent:
            return lambda: weights.recent(width, heads, head)
        return lambda: weights.matrix(width, heads * head)

    queries, keys = model.heads * head, model.kv_heads * head
    for layer in range(model.layers):
        name = f"blk.{layer}."
        tensors += [_norm(f"{name}attn_norm.weight", width), _norm(f"{name}ffn_norm.weight", width)]
        tensors += [_norm(f"{name}attn_q_norm.weight", head), _norm(f"{name}attn_k_norm.weight", head)]
        add(f"{name}attn_q.weight", (width, queries), attends(model.heads))
        add(f"{name}attn_k.weight", (width, keys), attends(model.kv_heads))
        add(f"{name}attn_v.weight", (width, keys), lambda: weights.matrix(width, keys))
        add(
            f"{name}attn_output.weight",
            (queries, width),
            lambda: weights.matrix(queries, width, model.attention, quiet=_BLOCK),
        )
        # The stream grows by what the layers add, and its norm divides the constant by that.
        grown = np.sqrt(1 + layer * (model.attention**2 + model.experts_gain**2))
        add(
            f"{name}ffn_gate_inp.weight",
            (width, model.experts),
            lambda grown=grown: weights.router(
                width, model.experts, weights.rng.standard_normal(model.experts) * model.skew * grown
            ),
            "F32",
        )
        for part in ("gate", "up"):
            add(
                f"{name}ffn_{part}_exps.weight",
                (width, model.expert_width, model.experts),
                lambda: weights.matrix(width, model.expert_width),
                times=model.experts,
            )
        add(
            f"{name}ffn_down_exps.weight",
            (model.expert_width, width, model.experts),
            lambda: weights.matrix(model.expert_width, width, model.experts_gain, quiet=_BLOCK),
            times=model.experts,
        )
    return tensors


def dense_tensors(model: Dense, vocabulary: int, seed: int = 17) -> list[Tensor]:
    weights, width = Weights(seed), model.width
    tensors = _outside(weights, width, vocabulary)[:2]  # the head is the embedding
    keys = width // model.heads * model.kv_heads

    def add(name: str, columns: int, rows: int, gain: float = 1.0) -> None:
        tensors.append(Tensor(name, (columns, rows), "Q4_0", lambda: iter([weights.matrix(columns, rows, gain)])))

    for layer in range(model.layers):
        name = f"blk.{layer}."
        tensors += [_norm(f"{name}attn_norm.weight", width), _norm(f"{name}ffn_norm.weight", width)]
        add(f"{name}attn_q.weight", width, width)
        add(f"{name}attn_k.weight", width, keys)
        add(f"{name}attn_v.weight", width, keys)
        add(f"{name}attn_output.weight", width, width, 0.1)
        add(f"{name}ffn_gate.weight", width, model.feed_forward)
        add(f"{name}ffn_up.weight", width, model.feed_forward)
        add(f"{name}ffn_down.weight", model.feed_forward, width, 0.1)
    return tensors


def _entries(name: str, model: Mixture | Dense, vocabulary: int) -> list[KeyValue]:
    kind = "qwen3moe" if isinstance(model, Mixture) else "llama"
    head = model.head if isinstance(model, Mixture) else model.width // model.heads
    entries = [
        text("general.architecture", kind),
        text("general.name", f"random weights, {name}"),
        u32("general.file_type", 2),  # mostly Q4_0
        u32("general.quantization_version", 2),
        u32(f"{kind}.context_length", 4096),
        u32(f"{kind}.embedding_length", model.width),
        u32(f"{kind}.block_count", model.layers),
        u32(f"{kind}.attention.head_count", model.heads),
        u32(f"{kind}.attention.head_count_kv", model.kv_heads),
        u32(f"{kind}.attention.key_length", head),
        u32(f"{kind}.attention.value_length", head),
        f32(f"{kind}.attention.layer_norm_rms_epsilon", 1e-6),
        f32(f"{kind}.rope.freq_base", 1e6),
        u32(f"{kind}.vocab_size", vocabulary),
        u32(f"{kind}.rope.dimension_count", head),
    ]
    if isinstance(model, Dense):
        return [*entries, u32(f"{kind}.feed_forward_length", model.feed_forward)]
    return [
        *entries,
        u32(f"{kind}.feed_forward_length", 2048),
        u32(f"{kind}.expert_count", model.experts),
        u32(f"{kind}.expert_used_count", model.used),
        u32(f"{kind}.expert_feed_forward_length", model.expert_width),
    ]


def write_model(path: Path, name: str, model: Mixture | Dense, tokenizer: Path = TOKENIZER) -> None:
    """Write the model with the vocabulary and the chat template of the file `tokenizer`."""
    with GgufSource(tokenizer, "") as source:
        taken = [entry for entry in source.metadata if entry.key.startswith("tokenizer.")]
        vocabulary = source.card.vocab_size
    tensors = (mixture_tensors if isinstance(model, Mixture) else dense_tensors)(model, vocabulary)  # type: ignore[operator]
    plan = layout([*_entries(name, model, vocabulary), *taken], tensors)
    write_stream(path, _pieces(plan, tensors))


def made(folder: Path, names: Sequence[str], tokenizer: Path = TOKENIZER) -> dict[str, Path]:
    """The files of the models called `names`; those that are missing are made."""
    paths = {name: folder / f"{name}.gguf" for name in names}
    for name, path in paths.items():
        if not path.exists():
            write_model(path, name, MODELS[name], tokenizer)
    return paths


def _pieces(plan: Layout, tensors: Sequence[Tensor]) -> Iterator[bytes | memoryview]:
    yield plan.header
    at = len(plan.header)
    for tensor, offset in zip(tensors, plan.offsets, strict=True):
        yield bytes(offset - at)
        at = offset
        for piece in tensor.data():
            yield piece.data
            at += piece.nbytes
    yield bytes(plan.size - at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    parser.add_argument("--only", default=",".join(MODELS))
    given = parser.parse_args()
    for path in made(given.folder, given.only.split(","), given.tokenizer).values():
        print(f"{path.stat().st_size / 2**30:.2f} GiB  {path}")


if __name__ == "__main__":
    main()
