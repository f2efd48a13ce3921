"""Rows that many families share: embeddings, grouped-query attention, gated feed-forward networks, experts."""

from __future__ import annotations

from collections.abc import Callable

from quant.convert.facts import Facts
from quant.convert.family import Key, Row, When, blk, both, flag, row
from quant.convert.transforms import Transform, cut, rotary

SOFTMAX, SIGMOID = 1, 2  # values of expert_gating_func (llama_expert_gating_func_type in src/llama-hparams.h)
EMBEDDING = (row("token_embd.weight", "model.embed_tokens.weight", "vocab hidden"),)
OUTPUT_NORM = (row("output_norm.weight", "model.norm.weight", "hidden"),)
# Tied embeddings need no output matrix; where a checkpoint has one all the same it is kept, as llama.cpp does.
OUTPUT = (
    row("output.weight", "lm_head.weight", "vocab hidden", when="!tie_word_embeddings"),
    row("output.weight", "lm_head.weight", "vocab hidden", when="tie_word_embeddings", optional=True),
    *OUTPUT_NORM,
)
UNTIED_OUTPUT = (row("output.weight", "lm_head.weight", "vocab hidden", when="!tie_word_embeddings"), *OUTPUT_NORM)
# Norms before attention and before the feed-forward network.
NORMS = (
    blk("attn_norm.weight", "input_layernorm.weight", "hidden"),
    blk("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
)


def linear(
    to: str, of: str, rows: str, columns: str, *by: Transform, bias: When = False, when: When = True
) -> tuple[Row, ...]:
    """The matrix of `rows` x `columns` of every layer, with its bias where `bias` says so."""
    found = (blk(f"{to}.weight", f"{of}.weight", f"{rows} {columns}", *by, when=when),)
    if bias is False:
        return found
    return (*found, blk(f"{to}.bias", f"{of}.bias", rows, *by, when=both(when, bias)))


def attention(
    of: str = "self_attn",
    *,
    in_pairs: bool = False,
    bias: When = False,
    output_bias: When = False,
    norm: bool = False,
    when: When = True,
) -> tuple[Row, ...]:
    """Grouped-query attention. `in_pairs`: the engine rotates pairs of neighbours, so queries and keys are reordered
    (LLAMA_ROPE_TYPE_NORM in llama_model_rope_type of llama.cpp); `norm`: they are normalised per head."""
    queries, keys = ((rotary("heads"),), (rotary("kv_heads"),)) if in_pairs else ((), ())
    rows = (
        *linear("attn_q", f"{of}.q_proj", "heads*head", "hidden", *queries, bias=bias, when=when),
        *linear("attn_k", f"{of}.k_proj", "kv_heads*head", "hidden", *keys, bias=bias, when=when),
        *linear("attn_v", f"{of}.v_proj", "kv_heads*head", "hidden", bias=bias, when=when),
        *linear("attn_output", f"{of}.o_proj", "hidden", "heads*head", bias=output_bias, when=when),
    )
    return (*rows, *(head_norms(of, when=when) if norm else ()))


def head_norms(of: str = "self_attn", *by: Transform, when: When = True) -> tuple[Row, ...]:
    """The norms of queries and keys, one for all heads."""
    return (
        blk("attn_q_norm.weight", f"{of}.q_norm.weight", "head", *by, when=when),
        blk("attn_k_norm.weight", f"{of}.k_norm.weight", "head", *by, when=when),
    )


def feed_forward(of: str = "mlp", ffn: str = "ffn", *, bias: When = False, when: When = True) -> tuple[Row, ...]:
    """gate, up and down projection with an inner width of `ffn`."""
    return (
        *linear("ffn_gate", f"{of}.gate_proj", ffn, "hidden", bias=bias, when=when),
        *linear("ffn_up", f"{of}.up_proj", ffn, "hidden", bias=bias, when=when),
        *linear("ffn_down", f"{of}.down_proj", "hidden", ffn, bias=bias, when=when),
    )


def shared_experts(
    of: str = "mlp.shared_experts", ffn: str = "shared_experts*expert_ffn", *, when: When = True
) -> tuple[Row, ...]:
    """The experts that every token uses, as one network."""
    return (
        *linear("ffn_gate_shexp", f"{of}.gate_proj", ffn, "hidden", when=when),
        *linear("ffn_up_shexp", f"{of}.up_proj", ffn, "hidden", when=when),
        *linear("ffn_down_shexp", f"{of}.down_proj", "hidden", ffn, when=when),
    )


def experts(
    of: str = "mlp.experts",
    ffn: str = "expert_ffn",
    *,
    names: tuple[str, str, str] = ("down_proj", "gate_proj", "up_proj"),
    order: tuple[str, str, str] = ("down", "gate", "up"),
    when: When = True,
) -> tuple[Row, ...]:
    """The routed experts, stacked in the order in which llama.cpp's converter writes them. `names` go with `order`."""
    return tuple(
        blk(
            f"ffn_{kind}_exps.weight",
            f"{of}.{{e}}.{name}.weight",
            f"hidden {ffn}" if kind == "down" else f"{ffn} hidden",
            when=when,
        )
        for kind, name in zip(order, names, strict=True)
    )


def sliding(every: int) -> Callable[[Facts, int], bool]:
    """Whether a layer attends to a window alone: by layer_types, else all but every `every`-th layer do."""

    def is_sliding(facts: Facts, layer: int) -> bool:
        if facts.config.has("layer_types"):
            return facts.config.layer_types[layer] == "sliding_attention"
        return (layer + 1) % every != 0

    return is_sliding


def sliding_pattern(every: int) -> Key:
    """For each layer whether it attends to a window alone."""
    is_sliding = sliding(every)
    return flag(
        "attention.sliding_window_pattern", lambda facts: [is_sliding(facts, layer) for layer in range(facts.layers)]
    )


def fused_experts(of: str = "mlp.experts", ffn: str = "expert_ffn", *, when: When = True) -> tuple[Row, ...]:
    """The routed experts where the checkpoint has them stacked, the matrices of gate and up one after the other."""
    both_shape = f"experts 2*{ffn} hidden"
    return (
        blk("ffn_down_exps.weight", f"{of}.down_proj", f"experts hidden {ffn}", when=when),
        blk("ffn_gate_exps.weight", f"{of}.gate_up_proj", both_shape, cut("0", ffn), when=when),
        blk("ffn_up_exps.weight", f"{of}.gate_up_proj", both_shape, cut(ffn, ffn), when=when),
    )


def router(of: str = "mlp.gate", *, when: When = True) -> tuple[Row, ...]:
    return (blk("ffn_gate_inp.weight", f"{of}.weight", "experts hidden", when=when),)
