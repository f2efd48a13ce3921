"""Estimates the working buffers of the engine: the numbers alive at once in the widest part of a layer. Pure.

The formulas follow ggml's allocator (ggml-alloc.c), which reuses the smallest gap that is large enough. The order of
allocations differs between architectures and types of cache, so the numbers below are fitted to the engine's own
figures for a model of each architecture (tests/peers/breakdown.py).
"""

from __future__ import annotations

from runtime.gguf.card import ModelCard, layer_count
from runtime.placement.cache_shape import head_lengths, number
from runtime.placement.compared import SKETCH

_GATED = 3  # gate, up and their product
_FEW = 6  # positions, indices and the like

# How many times the width of a token a layer holds beside its feed-forward network, where the queries are as wide as
# the token: with a cache of floats, and with a quantized one, whose keys the engine rotates.
_WIDTHS = 4, 3
_OTHER_WIDTHS = {
    "afmoe": (3, 3), "arctic": (4, 4), "bailingmoe2": (3, 3), "bitnet": (3, 4), "bloom": (4, 5), "cohere2": (5, 5),
    "cohere2moe": (4, 5), "command-r": (4, 5), "dbrx": (3, 3), "exaone4": (4, 4), "falcon": (4, 4), "gemma4": (4, 4),
    "gpt2": (4, 5), "gptneox": (4, 4), "granitehybrid": (5, 5), "graniteswitch": (3, 2), "hrm_text": (4, 4),
    "jamba": (3, 3), "laguna": (4, 4), "lfm2": (3, 3), "lfm2moe": (3, 3), "mpt": (4, 5), "muse-glimmer": (3, 3),
    "olmo2": (4, 4), "phi2": (5, 5), "plamo": (4, 5), "plamo3": (3, 3), "qwen": (3, 3), "qwen35": (3, 3),
    "spark2_5": (4, 4), "step35": (4, 4), "talkie": (5, 4),
    "deepseek4": (12, 12),  # four streams of hidden values (hyper-connections)
}  # fmt: skip
_TIME_MIX_WIDTHS = {"rwkv6": 14, "rwkv7": 19, "arwkv7": 18}
_GATED_QUERIES = ("qwen35", "qwen35moe", "qwen3next", "qwen4exp")
_DELTA_NETS = ("qwen35", "qwen35moe")
# Floats that an indexer holds for each token and cell, besides its mask, where it does so all the time.
_SCORES = {"deepseek4": 1, "glm5-next": 0.75, "qwen4exp": 4.25}


def graph_rows(rows: int, sequences: int) -> int:
    """The tokens of the largest graph: the engine rounds them up to a multiple of the sequences (graph_reserve)."""
    return -(-rows // sequences) * sequences


def dense_floats(card: ModelCard, *, quantized: bool) -> int:
    """Floats of one token in a layer with a dense feed-forward network; `quantized` says how the cache is kept."""
    width, inputs = card.embedding_length, _per_layer_inputs(card)
    if card.architecture == "gemma3n":
        # Four copies of the hidden values find which are above the threshold (gaussian_topk in models/gemma3n.cpp).
        inner = max(4 * _dense(card)[1], 3 * inputs)
        return 6 * width + inner + inputs + _FEW
    beside, deep, (times, inner) = _besides(card, quantized=quantized), _deep(card), _dense(card)
    # The product of gate and up reuses memory of earlier values if that is large enough.
    gap = width if deep else min(beside - 2 * width, 2 * width)
    hidden = (times - 1 if times == _GATED and inner <= gap else times) * inner
    if inputs:
        return max(2 * (width + inputs) + hidden, 3 * width + 4 * inputs) + _FEW
    return beside + deep + hidden + _FEW


def routed_floats(card: ModelCard, *, quantized: bool) -> int:
    """Floats of one token in a layer with routed experts."""
    inner = max((tensor.shape[0] for tensor in card.tensors if tensor.name.endswith("ffn_down_exps.weight")), default=0)
    hidden, out = card.experts_used * inner, card.experts_used * card.embedding_length
    # The output of the experts reuses memory of earlier values if that is large enough.
    beside = _besides(card, quantized=quantized) + _deep(card)
    return beside + 3 * hidden + (out if out > 2 * hidden else 0) + _FEW


def converted_bytes(card: ModelCard) -> int:
    """Bytes of one token that the CPU's kernels convert for a product with quantized weights: 8 bits for a number, and
    scales (ggml_graph_plan in ggml-cpu.c). The engine keeps that memory; its own figures leave it out."""
    inner = max((tensor.shape[0] for tensor in card.tensors if tensor.name.endswith("ffn_down_exps.weight")), default=0)
    widest = max(card.embedding_length, card.heads * card.value_length, _dense(card)[1], card.experts_used * inner)
    return widest * 9 // 8 + 8 * card.experts_used


def recurrent_floats(card: ModelCard, rows: int, sequences: int) -> int:
    """Floats of a recurrent layer for `rows` tokens of so many sequences."""
    width, inner = card.embedding_length, number(card, "ssm.inner_size")
    if times := _TIME_MIX_WIDTHS.get(card.architecture):
        return rows * (times * width + _FEW) + sequences * 2 * width * number(card, "wkv.head_size")
    if not inner or not any(".ssm_conv1d." in tensor.name for tensor in card.tensors):
        return 0
    keys = number(card, "ssm.group_count") * number(card, "ssm.state_size")
    channels = inner + 2 * keys
    window = max(0, number(card, "ssm.conv_kernel") - 1) * channels
    state = inner * number(card, "ssm.state_size")
    if card.architecture in _DELTA_NETS:
        states, joined = sequences * state, rows * channels + sequences * window
        # The old states take the place of the convolution's input before it was joined with the windows.
        first = max(joined, states)
        convolved = rows * (3 * width + channels) + first + joined
        product = rows * inner + states
        gap = first - states + joined - rows * 2 * keys
        return convolved + (product if product > gap else 0) + rows * _FEW
    delta = any(part in tensor.name for tensor in card.tensors for part in (".ssm_ba.", ".ssm_alpha.", ".ssm_beta."))
    listed = (tensor.shape[1] for tensor in card.tensors if ".ssm_in." in tensor.name and not delta)
    projected = max(listed, default=0)
    each = width + projected + 2 * channels + 2 * inner + _FEW
    if projected:  # Mamba
        further = width if card.architecture == "falcon-h1" else 0
        return rows * (each + further) + sequences * (state + 2 * window)
    further = inner + width if card.architecture == "qwen3next" else 0
    return rows * (each + further) + sequences * 2 * (state + window)


def attention_floats(card: ModelCard) -> int:
    """Floats of one token alive at once in attention."""
    width, head = card.embedding_length, card.key_length + card.value_length
    if card.is_mla:
        # Behind a wide feed-forward network lies memory that is too small for the absorbed queries.
        gap = 0 if is_indexed(card) else max(0, _dense(card)[1] - width)
        rotated = 0 if number(card, "kda.head_dim") else card.rope_dimensions
        return 3 * width + gap + card.heads * (head + card.key_length_mla + rotated) + _streams(card)
    if has_unpacked_latent(card):
        return 4 * width + 3 * card.heads * head
    gate = card.heads * card.key_length if card.architecture in _GATED_QUERIES else 0
    return 3 * width + (card.heads + card.kv_heads) * head + gate


def has_unpacked_latent(card: ModelCard) -> bool:
    """Whether this is a DeepSeek file from before April 2025, without MLA lengths and with `attn_kv_b` in one piece."""
    return card.architecture == "deepseek2" and card.kv_lora_rank > 0 and not card.is_mla


def is_indexed(card: ModelCard) -> bool:
    """Whether an indexer in front of latent attention scores all cells for each token."""
    known = card.is_mla and card.architecture not in _SCORES
    return known and bool(number(card, "attention.indexer.top_k"))


def indexer_floats(card: ModelCard, cells: int) -> int:
    """Floats of one token that an indexer adds to latent attention."""
    if not is_indexed(card):
        return 0
    zeros = min(cells, number(card, "attention.indexer.top_k"))  # build_attn in llama-graph.cpp, one tensor for a layer
    scores = number(card, "attention.indexer.head_count") * number(card, "attention.indexer.key_length") + cells
    # Queries and scores reuse the memory of the attention's own queries if that is large enough.
    reused = card.heads * (card.value_length + card.key_length_mla)
    return card.q_lora_rank + layer_count(card) * zeros + (scores if scores > reused else 0)


def scored_floats(card: ModelCard) -> float:
    """Floats of one token for each cell, besides a mask, where an indexer's scores are kept beside everything."""
    return _SCORES.get(card.architecture, 0) if number(card, "attention.indexer.top_k") else 0


def _besides(card: ModelCard, *, quantized: bool) -> int:
    """Floats of one token that a layer holds beside its feed-forward network.

    The output of attention lies behind the memory of the queries, or in a gap that they left if it fits there.
    """
    width, times = card.embedding_length, _OTHER_WIDTHS.get(card.architecture, _WIDTHS)[quantized]
    length, _ = head_lengths(card, narrow=bool(number(card, "attention.sliding_window")))
    if card.q_lora_rank or card.is_mla or _recurs(card):
        return times * width
    queries = card.heads * length
    if quantized and card.architecture not in _OTHER_WIDTHS:
        # Rotated queries and outputs lie beside each other.
        return times * width + (2 * queries if queries < width else queries if queries > width else 0)
    return (times - 1) * width + queries


def _recurs(card: ModelCard) -> bool:
    return any(part in tensor.name for tensor in card.tensors for part in (".ssm_conv1d.", ".shortconv.", ".time_mix_"))


def _deep(card: ModelCard) -> int:
    """Floats of the image features that a token brings for the first layers, and their copy (Qwen 3 VL)."""
    return 2 * number(card, "n_deepstack_layers") * card.embedding_length


def _streams(card: ModelCard) -> int:
    """Floats of the further streams of hidden values (hyper-connections)."""
    return number(card, "hyper_connection.count") * card.embedding_length


def _dense(card: ModelCard) -> tuple[int, int]:
    """How many hidden values of which length the widest dense network has: gate, up and product, or one ungated."""
    gated = any(part in tensor.name for tensor in card.tensors for part in (".ffn_gate.", ".ffn_gate_shexp."))
    ups, downs = {}, []
    for tensor in card.tensors:
        part = tensor.name.rsplit(".", 2)[-2] if tensor.layer is not None and tensor.layer < layer_count(card) else ""
        if part in ("ffn_up", "ffn_up_shexp"):
            ups[tensor.layer, part.replace("up", "down")] = tensor.shape[-1]
        elif part in ("ffn_down", "ffn_down_shexp"):
            downs.append((tensor.layer, part, tensor.shape[0]))
    found = ((_GATED if gated or ups.get((layer, part), 0) == 2 * inner else 1, inner) for layer, part, inner in downs)
    return max(found, key=lambda each: each[0] * each[1], default=(0, 0))


def _per_layer_inputs(card: ModelCard) -> int:
    """The rows of the per-layer embeddings, for all layers at once."""
    table = next((tensor for tensor in card.tensors if tensor.name == "per_layer_token_embd.weight"), None)
    return table.shape[0] if table and card.architecture in ("gemma3n", "gemma4", SKETCH) else 0
