"""Estimates the working buffers of the engine: the numbers alive at once in the widest part of a layer. Pure.

The formulas are fitted to the engine's own figures for a model of each architecture (tests/peers/breakdown.py). Those
follow from the order in which ggml's allocator reuses memory, which differs between architectures and types of cache.
"""

from __future__ import annotations

from runtime.gguf.card import ModelCard, layer_count
from runtime.placement.cache_shape import number

_FEW = 6  # positions, indices and the like

# How many times the width of a token a layer holds beside its feed-forward network: with a cache of floats, and with a
# quantized one, whose keys the engine rotates.
_WIDTHS = 4, 3
_OTHER_WIDTHS = {
    "afmoe": (3, 3), "arctic": (4, 4), "bailingmoe2": (3, 3), "bitnet": (3, 4), "bloom": (4, 5), "cohere2": (5, 5),
    "cohere2moe": (4, 5), "command-r": (4, 5), "dbrx": (3, 3), "exaone4": (4, 4), "falcon": (4, 4), "gemma4": (4, 4),
    "gpt2": (4, 5), "gptneox": (4, 4), "graniteswitch": (3, 2), "hrm_text": (4, 4), "jamba": (3, 3), "laguna": (4, 4),
    "lfm2": (3, 3), "lfm2moe": (3, 3), "mpt": (4, 5), "muse-glimmer": (3, 3), "olmo2": (4, 4), "phi2": (5, 5),
    "plamo": (4, 5), "plamo3": (3, 3), "qwen": (3, 3), "spark2_5": (4, 4), "step35": (4, 4), "talkie": (5, 4),
    "deepseek4": (12, 12),  # four streams of hidden values (hyper-connections)
}  # fmt: skip
_ALTUP_WIDTHS = 24  # Gemma 3n's four streams outweigh its feed-forward network
_TIME_MIX_WIDTHS = {"rwkv6": 14, "rwkv7": 19, "arwkv7": 18}
# Bytes that an indexer holds for each token and cell, besides the mask.
_SCORE, _OTHER_SCORES = 6, {"deepseek4": 4, "glm5-next": 3, "qwen4exp": 17}


def graph_rows(rows: int, sequences: int) -> int:
    """The tokens of the largest graph: the engine rounds them up to a multiple of the sequences (graph_reserve)."""
    return -(-rows // sequences) * sequences


def dense_floats(card: ModelCard, *, quantized: bool) -> int:
    """Floats of one token in a layer with a dense feed-forward network; `quantized` says how the cache is kept."""
    if card.architecture == "gemma3n":
        return _ALTUP_WIDTHS * card.embedding_length + _per_layer_inputs(card) + _FEW
    return _widths(card, quantized) + _dense_inner(card) + _per_layer_inputs(card) + _FEW


def routed_floats(card: ModelCard, *, quantized: bool) -> int:
    """Floats of one token in a layer with routed experts."""
    inner = max((tensor.shape[0] for tensor in card.tensors if tensor.name.endswith("ffn_down_exps.weight")), default=0)
    hidden, out = card.experts_used * inner, card.experts_used * card.embedding_length
    # The output of the experts reuses memory of earlier values if that is large enough.
    return _widths(card, quantized) + 3 * hidden + (out if out > 2 * hidden else 0) + _FEW


def recurrent_floats(card: ModelCard) -> tuple[int, int]:
    """Floats of one token, and of one sequence, in a recurrent layer."""
    width, inner = card.embedding_length, number(card, "ssm.inner_size")
    if times := _TIME_MIX_WIDTHS.get(card.architecture):
        state = width * number(card, "wkv.head_size")
        return times * width + _FEW, 2 * state
    if not inner or not any(".ssm_conv1d." in tensor.name for tensor in card.tensors):
        return 0, 0
    channels = inner + 2 * number(card, "ssm.group_count") * number(card, "ssm.state_size")
    window = max(0, number(card, "ssm.conv_kernel") - 1) * channels
    state = inner * number(card, "ssm.state_size")
    delta = any(part in tensor.name for tensor in card.tensors for part in (".ssm_ba.", ".ssm_alpha.", ".ssm_beta."))
    listed = (tensor.shape[1] for tensor in card.tensors if ".ssm_in." in tensor.name and not delta)
    projected = max(listed, default=0)
    each = width + projected + 2 * channels + 2 * inner + _FEW
    if projected:  # Mamba
        return each + (width if card.architecture == "falcon-h1" else 0), state + 2 * window
    return each + (inner + width if card.architecture == "qwen3next" else 0), 2 * (state + window)


def indexer_bytes(card: ModelCard) -> int:
    """Bytes of one token for each cell where an indexer scores the cells; 0 without one."""
    if not number(card, "attention.indexer.top_k") or card.architecture == "minimax-m3":
        return 0
    return _OTHER_SCORES.get(card.architecture, _SCORE)


def _widths(card: ModelCard, quantized: bool) -> int:
    return _OTHER_WIDTHS.get(card.architecture, _WIDTHS)[quantized] * card.embedding_length


def _dense_inner(card: ModelCard) -> int:
    """The hidden values of the widest dense network: gate, up and their product, or one where there is no gate."""
    gated = any(part in tensor.name for tensor in card.tensors for part in (".ffn_gate.", ".ffn_gate_shexp."))
    ups, downs = {}, []
    for tensor in card.tensors:
        part = tensor.name.rsplit(".", 2)[-2] if tensor.layer is not None and tensor.layer < layer_count(card) else ""
        if part in ("ffn_up", "ffn_up_shexp"):
            ups[tensor.layer, part.replace("up", "down")] = tensor.shape[-1]
        elif part in ("ffn_down", "ffn_down_shexp"):
            downs.append((tensor.layer, part, tensor.shape[0]))
    found = ((3 if gated or ups.get((layer, part), 0) == 2 * inner else 1) * inner for layer, part, inner in downs)
    return max(found, default=0)


def _per_layer_inputs(card: ModelCard) -> int:
    """The rows of the per-layer embeddings, for all layers at once."""
    table = next((tensor for tensor in card.tensors if tensor.name == "per_layer_token_embd.weight"), None)
    return table.shape[0] if table and card.architecture in ("gemma3n", "gemma4") else 0
