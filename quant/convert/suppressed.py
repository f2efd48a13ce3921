"""Tokens that must never be drawn, because the model has no embedding for them."""

from __future__ import annotations

from collections.abc import Mapping

from quant.convert.checkpoint_tensors import NamedTensors
from quant.gguf import writer
from quant.gguf.writer import KeyValue
from quant.sources.checkpoint import Checkpoint

_EMBEDDING = "model.embed_tokens.weight"
_ROWS = 256  # rows that are read at a time


def suppressed_tokens(tensors: NamedTensors, vocabulary: int) -> tuple[KeyValue, ...]:
    """The list of tokens behind the tokenizer's own ones whose embedding is zero, if there are any.

    `vocabulary` are the rows of the embeddings (MiniMaxText01Model._get_suppress_tokens in conversion/minimax.py of
    llama.cpp)."""
    import numpy as np

    known = _known(tensors.checkpoint)
    row_length = tensors[_EMBEDDING].shape[1]
    found: list[int] = []
    for first in range(known, vocabulary, _ROWS):
        rows = np.empty((min(_ROWS, vocabulary - first), row_length), np.float32)
        tensors.read(_EMBEDDING, first, len(rows), rows)
        found += (np.flatnonzero(~rows.any(axis=1)) + first).tolist()
    return (writer.i32s("tokenizer.ggml.suppress_tokens", found),) if found else ()


def _known(checkpoint: Checkpoint) -> int:
    """Tokens of the tokenizer without added ones."""
    model = (checkpoint.json("tokenizer.json") or {}).get("model")
    words = model.get("vocab") if isinstance(model, Mapping) else None
    return len(words) if isinstance(words, Mapping) else 0
