"""Tiny models that give embeddings, with random weights: one of each kind that the engine knows.

    write_embedder("bert", tmp_path / "bert.gguf")

The engine says which tensors such a model has (tests/every_architecture.py); metadata and vocabulary are here.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.every_architecture import tensors
from tests.gguf_writer import T, write

WIDTH, CONTEXT = 64, 600
_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
_WORDS = ["the", "cat", "sat", "mat", "on", "dog", "runs", "far"]
# WordPiece of the engine: a word begins with "▁", a continuation has no mark.
_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{each}" for each in (*_WORDS, *_LETTERS)), *_LETTERS, "."]
_BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_TOKENS = [chr(byte) for byte in _BYTES] + [chr(256 + n) for n in range(256 - len(_BYTES))]
_SCORED = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{each}" for each in _WORDS), *_LETTERS, "."]
_SPM = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(f"▁{each}" for each in _WORDS),
        *_LETTERS]  # fmt: skip

_WORDPIECE: dict[str, Any] = {
    "model": "bert", "tokens": _PIECES, "token_type": [3, 3, 3, 3, 3, *[1] * (len(_PIECES) - 5)],
    "bos_token_id": 2, "eos_token_id": 3, "seperator_token_id": 3, "unknown_token_id": 1, "padding_token_id": 0,
    "cls_token_id": 2, "mask_token_id": 4,
}  # fmt: skip
_BYTE_LEVEL: dict[str, Any] = {
    "model": "gpt2", "pre": "qwen2", "tokens": [*_BYTE_TOKENS, "<s>", "</s>", "th", "the"],
    "token_type": [*[1] * 256, 3, 3, 1, 1], "merges": ["t h", "th e"], "bos_token_id": 256, "eos_token_id": 257,
}  # fmt: skip
_PIECES_WITH_SCORES: dict[str, Any] = {
    "model": "llama", "tokens": _SPM, "scores": [-float(n) for n in range(len(_SPM))],
    "token_type": [2, 3, 3, *[6] * 256, *[1] * (len(_SPM) - 259)], "bos_token_id": 1, "eos_token_id": 2,
    "add_bos_token": True, "add_eos_token": True,
}  # fmt: skip
_UNIGRAM: dict[str, Any] = {
    "model": "t5", "tokens": _SCORED, "scores": [-float(n) for n in range(len(_SCORED))],
    "token_type": [3, 3, 2, *[1] * (len(_SCORED) - 3)], "eos_token_id": 1, "unknown_token_id": 2,
    "padding_token_id": 0, "add_bos_token": False, "add_eos_token": True,
}  # fmt: skip

_MEAN, _CLS, _LAST, _RANK = 1, 2, 3, 4  # enum llama_pooling_type (llama.h)
_ROTARY = {"rope.dimension_count": 16, "rope.freq_base": 10000.0}
_HEADS = {"attention.key_length": 16, "attention.value_length": 16}

KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bert": ("bert", {"pooling_type": _CLS}, _WORDPIECE),
    "bert-mean": ("bert", {"pooling_type": _MEAN}, _WORDPIECE),
    "bert-unsaid": ("bert", {}, _WORDPIECE),
    "nomic-bert": ("nomic-bert", {"pooling_type": _MEAN, **_ROTARY}, _WORDPIECE),
    "jina-bert-v2": ("jina-bert-v2", {"pooling_type": _MEAN}, _WORDPIECE),
    "modern-bert": (
        "modern-bert",
        {"pooling_type": _CLS, "attention.sliding_window": 16, "rope.freq_base_swa": 1000.0, **_ROTARY},
        {**_BYTE_LEVEL, "pre": "modern-bert", "add_bos_token": True, "add_eos_token": True},
    ),
    "eurobert": ("eurobert", {"pooling_type": _MEAN, **_ROTARY}, {**_BYTE_LEVEL, "add_bos_token": True}),
    "neo-bert": ("neo-bert", {"pooling_type": _CLS, **_ROTARY}, _WORDPIECE),
    "gemma-embedding": (
        "gemma-embedding",
        # Every sixth layer sees the whole text; the engine ends the process where no layer does.
        {"pooling_type": _MEAN, "block_count": 6, "attention.sliding_window": 16, **_ROTARY, **_HEADS},
        _PIECES_WITH_SCORES,
    ),
    "llama-embed": ("llama-embed", {"pooling_type": _MEAN, **_ROTARY}, _PIECES_WITH_SCORES),
    "t5encoder": ("t5encoder", {"attention.relative_buckets_count": 8, **_HEADS}, _UNIGRAM),
    "qwen3": (
        "qwen3", {"pooling_type": _LAST, **_ROTARY, **_HEADS}, {**_BYTE_LEVEL, "add_eos_token": True},
    ),
    "qwen3-mean": ("qwen3", {"pooling_type": _MEAN, **_ROTARY, **_HEADS}, _BYTE_LEVEL),
    "qwen3-unsaid": ("qwen3", {**_ROTARY, **_HEADS}, _BYTE_LEVEL),
    "gemma3": (
        "gemma3",
        {"attention.sliding_window": 16, **_ROTARY, **_HEADS},
        {**_PIECES_WITH_SCORES, "add_eos_token": False},
    ),
    "reranker": ("bert", {"pooling_type": _RANK}, _WORDPIECE),
}  # fmt: skip


def write_embedder(kind: str, path: Path, *, layers: int | None = None, fill: float | None = None) -> Path:
    """Write the model: two `layers` or as many as it needs, 64 numbers wide, texts of 600 tokens.

    `fill` replaces all weights.
    """
    architecture, own, vocabulary = KINDS[kind]
    facts: dict[str, Any] = {
        "block_count": 2,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 4,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "vocab_size": len(vocabulary["tokens"]),
        **own,
    }
    if layers is not None:
        facts["block_count"] = layers
    if "bert" in architecture:
        facts["attention.causal"] = False
    metadata = {
        "general.architecture": architecture,
        "general.name": kind,
        **{f"{architecture}.{key}": value for key, value in facts.items()},
    }
    token_types = {"tokenizer.ggml.token_type_count": 2} if "bert" in architecture else {}
    wanted = tensors(metadata | token_types, path)
    tokenizer = {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
    return write(path, metadata | token_types | tokenizer, [_weights(kind, each, fill) for each in wanted])


def _weights(kind: str, tensor: T, fill: float | None) -> T:
    """Random values that stay finite through a few layers: norms near 1, matrices of small numbers."""
    rng = np.random.default_rng(zlib.crc32(f"{kind} {tensor.name}".encode()))
    norm = tensor.name.endswith("norm.weight")
    values = (1 if norm else 0) + rng.standard_normal(tensor.shape) * (0.1 if norm else 0.2)
    if fill is not None:
        values = np.full(tensor.shape, fill)
    return T(tensor.name, tensor.shape, "F32", data=values.astype(np.float32).tobytes())
