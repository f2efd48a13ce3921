"""Tiny models with a layer that predicts ahead (MTP), made of the embedded one and its vocabulary.

with_mtp(path, nano)      the embedded model, with an untrained layer: its guesses are nearly all wrong
round_robin(path, nano)   a model that says all its tokens in turn, with a layer whose guesses are all right, but
                          only for the right hidden states
recurrent(path, nano)     a model that says them nearly in turn, with recurrent layers (qwen35); many guesses are
                          right, some are wrong
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.gguf.reader import read_card
from runtime.gguf.values import ArrayValue
from tests.gguf_writer import T, V, write
from tests.hybrids import elements, matrix, ones

Matrix = NDArray[np.float64]

WIDTH = 128
FIRST, LAST = 8, 639  # of the tokens that have their turn: those before are control tokens


def with_mtp(path: Path, nano: Path, **changes: Any) -> Path:
    """Layer 4 is layer 3 again, behind a projection of random numbers. `changes` of the metadata: head_count=4."""
    card = read_card(nano)
    width = card.embedding_length
    with nano.open("rb") as file:
        tensors = []
        for tensor in card.tensors:
            file.seek(tensor.offset)
            tensors.append(T(tensor.name, tensor.shape, tensor.type, data=file.read(tensor.size)))
    last, new = f"blk.{card.layers - 1}.", f"blk.{card.layers}."
    ahead = [T(t.name.replace(last, new), t.shape, t.type, data=t.data) for t in tensors if t.name.startswith(last)]
    projection = np.random.default_rng(1).standard_normal((width, 2 * width)) / np.sqrt(width)
    metadata = _metadata(nano, {"block_count": card.layers + 1, **changes})
    return write(path, metadata, [*tensors, *ahead, *_nextn(card.layers, projection)])


def turn_and_embedding() -> tuple[Matrix, Matrix]:
    """The embedding of each token that has its turn is that of the one before, turned; (turn, rows of tokens)."""
    chance = np.random.default_rng(0)
    turn, _ = np.linalg.qr(chance.standard_normal((WIDTH, WIDTH)))
    embedding = np.zeros((LAST + 1, WIDTH))
    state = chance.standard_normal(WIDTH)
    for token in range(FIRST, LAST + 1):
        embedding[token] = state
        state = turn @ state
    embedding[:FIRST] = embedding[FIRST]
    return turn, embedding


def round_robin(path: Path, nano: Path, *, hidden: bool = True) -> Path:
    """A model in which nothing but the embedding speaks: behind each token it says the next one of the round.

    The layer that predicts ahead tells what comes from the hidden state alone, by the turn (`hidden`), or from the last
    token alone, by doing nothing.
    """
    turn, embedding = turn_and_embedding()
    nothing = np.zeros((WIDTH, WIDTH))
    projection = np.hstack((nothing, turn) if hidden else (np.eye(WIDTH), nothing))
    changes = {
        "block_count": 2, "embedding_length": WIDTH, "feed_forward_length": 32, "attention.head_count": 2,
        "leading_dense_block_count": 1, "expert_count": 2, "expert_used_count": 1, "expert_feed_forward_length": 32,
        "attention.q_lora_rank": 32, "attention.kv_lora_rank": 32, "attention.key_length": 48,
        "attention.value_length": 32, "attention.key_length_mla": 32, "attention.value_length_mla": 16,
        "rope.dimension_count": 16,
    }  # fmt: skip
    tensors = [matrix("token_embd.weight", embedding), matrix("output.weight", _next_of(embedding))]
    tensors.append(ones("output_norm.weight", WIDTH))
    # Attention and experts are zeros: they add nothing.
    silent = [("gate", (WIDTH, 32)), ("up", (WIDTH, 32)), ("down", (32, WIDTH))]
    tensors += [*_attention(0), *_attention(1)]
    tensors += [T(f"blk.0.ffn_{name}.weight", shape) for name, shape in silent]
    tensors += [T(f"blk.1.ffn_{name}_shexp.weight", shape) for name, shape in silent]
    tensors += [T(f"blk.1.ffn_{name}_exps.weight", (*shape, 2)) for name, shape in silent]
    tensors += [T("blk.1.ffn_gate_inp.weight", (WIDTH, 2)), *_nextn(1, projection)]
    return write(path, _metadata(nano, changes), tensors)


def recurrent(path: Path, nano: Path) -> Path:
    """Three recurrent layers, one that attends, and one that predicts ahead. All of them add some noise."""
    turn, embedding = turn_and_embedding()
    chance = np.random.default_rng(3)
    tensors = [
        matrix("token_embd.weight", embedding), matrix("output.weight", _next_of(embedding)),
        ones("output_norm.weight", WIDTH), *_nextn(4, np.hstack((np.eye(WIDTH) / 2, turn / 2))),
    ]  # fmt: skip
    every = {"ffn_gate.weight": (WIDTH, 64), "ffn_up.weight": (WIDTH, 64), "ffn_down.weight": (64, WIDTH)}
    attending = {
        "attn_q.weight": (WIDTH, 256), "attn_k.weight": (WIDTH, 64), "attn_v.weight": (WIDTH, 64),
        "attn_output.weight": (128, WIDTH),
    }  # fmt: skip
    remembering = {
        "attn_qkv.weight": (WIDTH, 192), "attn_gate.weight": (WIDTH, 64), "ssm_conv1d.weight": (4, 192),
        "ssm_dt.bias": (2,), "ssm_beta.weight": (WIDTH, 2), "ssm_alpha.weight": (WIDTH, 2),
        "ssm_out.weight": (64, WIDTH),
    }  # fmt: skip
    for layer in range(5):
        before = f"blk.{layer}."
        tensors += [ones(f"{before}attn_norm.weight", WIDTH), ones(f"{before}post_attention_norm.weight", WIDTH)]
        for name, shape in (every | (remembering if layer < 3 else attending)).items():
            values = chance.standard_normal(shape[::-1]) / np.sqrt(shape[0])
            tensors.append(matrix(before + name, values))
        if layer < 3:
            tensors += [matrix(f"{before}ssm_a", np.array([-0.5, -0.2])), ones(f"{before}ssm_norm.weight", 32)]
        else:
            tensors += [ones(f"{before}attn_{name}_norm.weight", 32) for name in "qk"]
    own = {
        "block_count": 5, "embedding_length": WIDTH, "feed_forward_length": 64, "attention.head_count": 4,
        "attention.head_count_kv": 2, "attention.key_length": 32, "attention.value_length": 32, "context_length": 2048,
        "rope.freq_base": 10000.0, "rope.dimension_count": 16, "rope.dimension_sections": [4, 2, 2, 0],
        "attention.layer_norm_rms_epsilon": 1e-6, "vocab_size": LAST + 1, "full_attention_interval": 4,
        "ssm.conv_kernel": 4, "ssm.inner_size": 64, "ssm.state_size": 32, "ssm.time_step_rank": 2,
        "ssm.group_count": 2, "nextn_predict_layers": 1,
    }  # fmt: skip
    common = {key: value for key, value in _metadata(nano, {}).items() if not key.startswith("deepseek2.")}
    common["general.architecture"] = "qwen35"
    return write(path, common | {f"qwen35.{key}": value for key, value in own.items()}, tensors)


def _next_of(embedding: Matrix) -> Matrix:
    """The output that says the token whose turn is next."""
    output = np.zeros_like(embedding)
    output[FIRST + 1 :] = embedding[FIRST:LAST]
    output[FIRST] = embedding[LAST]
    return output


def _attention(layer: int) -> list[T]:
    shapes = {
        "attn_q_a": (WIDTH, 32), "attn_q_b": (32, 2 * 32), "attn_kv_a_mqa": (WIDTH, 32 + 16),
        "attn_k_b": (16, 32, 2), "attn_v_b": (32, 16, 2), "attn_output": (2 * 16, WIDTH),
    }  # fmt: skip
    norms = {"attn_norm": WIDTH, "ffn_norm": WIDTH, "attn_q_a_norm": 32, "attn_kv_a_norm": 32}
    return [
        *(T(f"blk.{layer}.{name}.weight", shape) for name, shape in shapes.items()),
        *(ones(f"blk.{layer}.{name}.weight", width) for name, width in norms.items()),
    ]


def _nextn(layer: int, projection: Matrix) -> list[T]:
    names = ("enorm", "hnorm", "shared_head_norm")
    return [
        matrix(f"blk.{layer}.nextn.eh_proj.weight", projection),
        *(ones(f"blk.{layer}.nextn.{name}.weight", len(projection)) for name in names),
    ]


def _metadata(nano: Path, changes: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in read_card(nano).metadata.items():
        found[key] = V(value.type, elements(value), array=True) if isinstance(value, ArrayValue) else value
    return found | {f"deepseek2.{key}": value for key, value in ({"nextn_predict_layers": 1} | changes).items()}
