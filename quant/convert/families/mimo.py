"""Xiaomi's MiMo V2 Flash: some layers see a window only, with key-value heads of their own and a sink."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, experts, feed_forward, linear, router
from quant.convert.facts import Facts
from quant.convert.families.glm import rotated_part
from quant.convert.family import Family, blk, both, f32, i32, neither, u32


def _in_list(facts: Facts, key: str, layer: int) -> bool:
    """Whether the list under `key` has a 1 for the layer."""
    found = facts.config.integers(key)
    if len(found) < facts.layers:
        raise facts.config.bad(f"{key} has {len(found)} numbers, fewer than there are layers")
    return found[layer] == 1


def _has_window(facts: Facts, layer: int) -> bool:
    return _in_list(facts, "hybrid_layer_pattern", layer)


def _is_sparse(facts: Facts, layer: int) -> bool:
    return _in_list(facts, "moe_layer_freq", layer)


def _kv_heads(facts: Facts, layer: int) -> int:
    return facts.number("swa_num_key_value_heads" if _has_window(facts, layer) else "num_key_value_heads")


MIMO2 = Family(
    "mimo2",
    classes=("MiMoV2FlashForCausalLM",),
    # configuration_mimo_v2_flash.py of XiaomiMiMo/MiMo-V2-Flash
    defaults={"layernorm_epsilon": 1e-5},
    sizes={"kv_heads": _kv_heads, "value": "v_head_dim"},
    without=("attention.head_count_kv", "attention.key_length"),
    tensors=(
        *EMBEDDING,
        *NORMS,
        *linear("attn_q", "self_attn.q_proj", "heads*head", "hidden", bias="attention_bias"),
        *linear("attn_k", "self_attn.k_proj", "kv_heads*head", "hidden", bias="attention_bias"),
        *linear("attn_v", "self_attn.v_proj", "kv_heads*value", "hidden", bias="attention_bias"),
        *linear("attn_output", "self_attn.o_proj", "hidden", "heads*value"),
        blk(
            "attn_sinks.weight",
            "self_attn.attention_sink_bias",
            "heads",
            when=both(_has_window, "add_swa_attention_sink_bias"),
        ),
        blk(
            "attn_sinks.weight",
            "self_attn.attention_sink_bias",
            "heads",
            when=both(neither(_has_window), "add_full_attention_sink_bias"),
        ),
        *feed_forward(when=neither(_is_sparse)),
        *router(when=_is_sparse),
        blk("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", "experts", when=_is_sparse),
        *experts(names=("gate_proj", "up_proj", "down_proj"), order=("gate", "up", "down"), when=_is_sparse),
        *OUTPUT,
    ),
    keys=(
        u32("attention.head_count_kv", lambda facts: [_kv_heads(facts, layer) for layer in range(facts.layers)]),
        u32("attention.sliding_window", "sliding_window"),
        i32(
            "attention.sliding_window_pattern",
            lambda facts: [int(_has_window(facts, layer)) for layer in range(facts.layers)],
        ),
        u32("attention.key_length", "head"),
        u32("attention.value_length", "value"),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("rope.dimension_count", rotated_part),
        f32("attention.layer_norm_rms_epsilon", "layernorm_epsilon"),
        f32("attention.value_scale", "attention_value_scale", optional=True),
    ),
    # Three layers for multi-token prediction, of which config.json says nothing.
    left_out=(r"model\.mtp\..*",),
)

FAMILIES = (MIMO2,)
