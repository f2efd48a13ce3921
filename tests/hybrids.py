"""Tiny random models of every kind of memory, with the vocabulary and the chat template of the embedded model.

    make("mamba", path, nano)    writes one; KINDS names them all

The weights are noise, scaled so that logits differ clearly between tokens and an early token changes all that follows:
one wrong number in a restored state shows in the greedy text. They never end an answer, and they say only words that
stand alone: each is one token again when a text is read. Shapes and keys: the loaders of llama.cpp in src/models/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.gguf.reader import read_card
from runtime.gguf.values import ArrayValue
from tests.gguf_writer import T, V, write

WIDTH = 64
LAYERS = 4
CONTEXT = 8192
_INNER = 2 * WIDTH  # of Mamba; the loaders accept no other factor
# A word behind a space: the pre-tokenizer cuts before each, so that a text of them is read as the tokens it was.
_WORD = re.compile(rb"\xc4\xa0[A-Za-z]+")  # the byte-level spelling of the space

Shapes = Mapping[str, tuple[int, ...]]

_NORMS = {"attn_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,)}
_FEED_FORWARD = {
    "ffn_gate.weight": (WIDTH, 96), "ffn_up.weight": (WIDTH, 96), "ffn_down.weight": (96, WIDTH),
}  # fmt: skip
_ATTENTION = {
    "attn_q.weight": (WIDTH, 64), "attn_k.weight": (WIDTH, 32), "attn_v.weight": (WIDTH, 32),
    "attn_output.weight": (64, WIDTH),
}  # fmt: skip
_QK_NORMS = {"attn_q_norm.weight": (16,), "attn_k_norm.weight": (16,)}

_MAMBA = {
    "attn_norm.weight": (WIDTH,), "ssm_in.weight": (WIDTH, 2 * _INNER), "ssm_conv1d.weight": (4, _INNER),
    "ssm_conv1d.bias": (_INNER,), "ssm_x.weight": (_INNER, 4 + 2 * 16), "ssm_dt.weight": (4, _INNER),
    "ssm_dt.bias": (_INNER,), "ssm_a": (16, _INNER), "ssm_d": (_INNER,), "ssm_out.weight": (_INNER, WIDTH),
}  # fmt: skip
_MAMBA2 = {
    "ssm_in.weight": (WIDTH, 2 * _INNER + 2 * 16 + 4), "ssm_conv1d.weight": (4, _INNER + 2 * 16),
    "ssm_conv1d.bias": (_INNER + 2 * 16,), "ssm_dt.bias": (4,), "ssm_a": (1, 4), "ssm_d": (1, 4),
    "ssm_norm.weight": (_INNER, 1), "ssm_out.weight": (_INNER, WIDTH),
}  # fmt: skip
_DELTA_NET = {
    "attn_qkv.weight": (WIDTH, 3 * 64), "attn_gate.weight": (WIDTH, 64), "ssm_conv1d.weight": (4, 3 * 64),
    "ssm_dt.bias": (2,), "ssm_a": (2,), "ssm_beta.weight": (WIDTH, 2), "ssm_alpha.weight": (WIDTH, 2),
    "ssm_norm.weight": (32,), "ssm_out.weight": (64, WIDTH),
}  # fmt: skip
_SHORT_CONVOLUTION = {
    "shortconv.conv.weight": (3, WIDTH), "shortconv.in_proj.weight": (WIDTH, 3 * WIDTH),
    "shortconv.out_proj.weight": (WIDTH, WIDTH),
}  # fmt: skip
_KIMI_DELTA = {
    **{f"attn_{name}.weight": (WIDTH, 64) for name in "qkv"},
    **{f"ssm_conv1d_{name}.weight": (4, 1, 64) for name in "qkv"},
    "ssm_f_a.weight": (WIDTH, 32), "ssm_f_b.weight": (32, 64), "ssm_beta.weight": (WIDTH, 2), "ssm_a": (1, 2),
    "ssm_dt.bias": (64,), "ssm_g_a.weight": (WIDTH, 32), "ssm_g_b.weight": (32, 64), "ssm_norm.weight": (32,),
    "attn_output.weight": (64, WIDTH),
}  # fmt: skip
_LATENT_ATTENTION = {
    "attn_q.weight": (WIDTH, 2 * 32), "attn_kv_a_mqa.weight": (WIDTH, 32 + 16), "attn_kv_a_norm.weight": (32,),
    "attn_k_b.weight": (16, 32, 2), "attn_v_b.weight": (32, 32, 2), "attn_output.weight": (2 * 32, WIDTH),
}  # fmt: skip
_RWKV = {
    **{f"attn_norm{which}.{part}": (WIDTH,) for which in ("", "_2") for part in ("weight", "bias")},
    **{f"time_mix_{name}0.weight": (WIDTH,) for name in "wav"},
    **{f"time_mix_{name}1.weight": (WIDTH, 16) for name in "wavg"},
    **{f"time_mix_{name}2.weight": (16, WIDTH) for name in "wavg"},
    "time_mix_lerp_fused.weight": (WIDTH, 1, 1, 6),
    **{f"time_mix_{name}.weight": (WIDTH,) for name in ("k_k", "k_a", "r_k", "ln")},
    **{f"time_mix_{name}.weight": (WIDTH, WIDTH) for name in ("key", "value", "receptance", "output")},
    "time_mix_ln.bias": (WIDTH,), "channel_mix_lerp_k.weight": (WIDTH, 1, 1),
    "channel_mix_key.weight": (WIDTH, 96), "channel_mix_value.weight": (96, WIDTH),
}  # fmt: skip

_COMMON = {
    "block_count": LAYERS, "context_length": CONTEXT, "embedding_length": WIDTH, "feed_forward_length": 96,
    "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
_HEADS = {"attention.head_count": 4, "attention.key_length": 16, "attention.value_length": 16,
          "rope.dimension_count": 16, "rope.freq_base": 10000.0}  # fmt: skip
_SOME_ATTEND = [0, 2, 0, 2]  # heads of keys and values by layer; none where a layer is recurrent
_STATE = {"ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.time_step_rank": 4}

_QUERY_LAYERS = (_ATTENTION | _QK_NORMS, _ATTENTION | _QK_NORMS)


def _alternating(recurrent: Shapes, attending: Shapes, also: Shapes) -> list[dict[str, tuple[int, ...]]]:
    return [{**(attending if heads else recurrent), **also} for heads in _SOME_ATTEND]


# kind -> (keys of the metadata, tensors of each layer)
KINDS: dict[str, tuple[dict[str, Any], list[dict[str, tuple[int, ...]]]]] = {
    # Recurrent layers alone: the state holds everything.
    "mamba": (
        {**_STATE, "ssm.inner_size": _INNER, "feed_forward_length": 0, "attention.head_count": 0},
        [_MAMBA] * LAYERS,
    ),
    # Linear attention with a decay for each channel, and tokens that are mixed with the one before. Heads of 64: the
    # kernel for AVX-512 (GGML_F32_STEP) reads beyond smaller ones.
    "rwkv7": (
        {"wkv.head_size": 64, "attention.layer_norm_epsilon": 1e-5, "attention.decay_lora_rank": 16,
         "attention.iclr_lora_rank": 16, "attention.value_residual_mix_lora_rank": 16, "attention.gate_lora_rank": 16,
         "token_shift_count": 2, "attention.head_count": 0},
        [_RWKV] * LAYERS,
    ),
    # Mamba-2 between layers that attend.
    "granitehybrid": (
        {**_STATE, **_HEADS, "ssm.inner_size": _INNER, "ssm.group_count": 1, "attention.head_count_kv": _SOME_ATTEND},
        _alternating(_MAMBA2, _ATTENTION, _NORMS | _FEED_FORWARD),
    ),
    # The gated delta net of Qwen3-Next and later.
    "qwen35": (
        {**_HEADS, "attention.head_count_kv": 2, "rope.dimension_sections": [4, 2, 2, 0], "full_attention_interval": 2,
         "ssm.conv_kernel": 4, "ssm.inner_size": 64, "ssm.state_size": 32, "ssm.time_step_rank": 2,
         "ssm.group_count": 2},
        _alternating(
            _DELTA_NET, _ATTENTION | _QK_NORMS | {"attn_q.weight": (WIDTH, 128)},
            {"attn_norm.weight": (WIDTH,), "post_attention_norm.weight": (WIDTH,), **_FEED_FORWARD},
        ),
    ),
    # Convolutions over three tokens.
    "lfm2": (
        {**_HEADS, "attention.head_count_kv": _SOME_ATTEND, "shortconv.l_cache": 3},
        _alternating(_SHORT_CONVOLUTION, _ATTENTION | _QK_NORMS, _NORMS | _FEED_FORWARD),
    ),
    # Linear attention with the delta rule (KDA), and latent attention.
    "kimi-linear": (
        {"attention.head_count": 2, "attention.head_count_kv": [0, 1, 0, 1], "attention.key_length": 32 + 16,
         "attention.value_length": 32, "attention.key_length_mla": 32, "attention.value_length_mla": 32,
         "attention.kv_lora_rank": 32, "rope.dimension_count": 16, "ssm.conv_kernel": 4, "kda.head_dim": 32,
         "leading_dense_block_count": LAYERS, "expert_feed_forward_length": 96, "expert_shared_count": 0,
         "expert_gating_func": 1},
        _alternating(_KIMI_DELTA, _LATENT_ATTENTION, _NORMS | _FEED_FORWARD),
    ),
    # A window of 128 tokens in three layers of four.
    "gemma3": (
        {**_HEADS, "attention.head_count_kv": 2, "attention.sliding_window": 128,
         "attention.sliding_window_pattern": 4},
        [{**_ATTENTION, **_QK_NORMS, **_NORMS, **_FEED_FORWARD, "post_attention_norm.weight": (WIDTH,),
          "post_ffw_norm.weight": (WIDTH,)}] * LAYERS,
    ),
}  # fmt: skip


def make(kind: str, path: Path, nano: Path) -> Path:
    """Write the model of that kind: F32, some hundred kilobytes, trained for 8,192 tokens as it says."""
    keys, layers = KINDS[kind]
    metadata = vocabulary(nano)
    words = [bool(_WORD.fullmatch(token)) for token in metadata["tokenizer.ggml.tokens"].value]
    chance = np.random.default_rng(14)
    # Small embeddings: what the layers add, which knows the context, outweighs the last token.
    embedding = (0.02 if kind == "gemma3" else 0.15) * chance.standard_normal((len(words), WIDTH))
    output = chance.standard_normal((len(words), WIDTH)) * np.array(words)[:, None]
    tensors = [
        matrix("token_embd.weight", embedding), matrix("output.weight", output),
        ones("token_embd_norm.weight" if kind == "lfm2" else "output_norm.weight", WIDTH),
    ]  # fmt: skip
    if kind == "rwkv7":
        zeros = np.zeros(WIDTH)
        tensors += [matrix("token_embd_norm.weight", np.full(WIDTH, 0.2)), matrix("token_embd_norm.bias", zeros)]
        tensors.append(matrix("output_norm.bias", zeros))
    for number, shapes in enumerate(layers):
        tensors += [matrix(f"blk.{number}.{name}", _weights(name, shape, chance)) for name, shape in shapes.items()]
    own = {f"{kind}.{key}": value for key, value in {**_COMMON, "vocab_size": len(words), **keys}.items()}
    metadata |= {"general.architecture": kind, "general.name": f"Tiny {kind}", **own}
    return write(path, metadata, tensors)


def _weights(name: str, shape: tuple[int, ...], chance: np.random.Generator) -> NDArray[np.float64]:
    """Noise that keeps the size of what passes through; rows are the last axis of the file's shape."""
    reverse = shape[::-1]
    if name == "ssm_a":  # a forgetting that is slow in some heads and faster in others
        return -np.exp(chance.uniform(-3, 0, reverse))
    if name == "ssm_dt.bias":
        return chance.uniform(-4, -1, reverse)
    if name == "attn_q_norm.weight":  # attention is sharp: a single token of many counts
        return np.full(reverse, 2.0)
    if ("norm" in name and name.endswith("weight")) or name.startswith("time_mix_ln.w") or name == "ssm_d":
        return np.ones(reverse)
    if name.endswith(".bias"):
        return 0.1 * chance.standard_normal(reverse)
    if "lerp" in name or name.startswith("time_mix_k_"):
        return chance.uniform(0, 1, reverse)
    if name == "time_mix_w0.weight":  # exp(-0.6 sigmoid(w)) of the state stays
        return chance.uniform(-6, -2, reverse)
    return chance.standard_normal(reverse) / np.sqrt(shape[0])


def vocabulary(nano: Path) -> dict[str, Any]:
    """The tokenizer and the chat template of a model, as `write` takes them."""
    found: dict[str, Any] = {}
    for key, value in read_card(nano).metadata.items():
        if key.startswith("tokenizer."):
            found[key] = V(value.type, elements(value), array=True) if isinstance(value, ArrayValue) else value
    return found


def elements(value: ArrayValue) -> list[Any]:
    return value.raw_strings() if value.type == "str" else list(value.numbers())


def matrix(name: str, values: NDArray[np.float64]) -> T:
    return T(name, values.shape[::-1], data=values.astype("<f4").tobytes())


def ones(name: str, width: int) -> T:
    return matrix(name, np.ones(width))
