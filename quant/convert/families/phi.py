"""Phi 3, 3.5 and 4 (with mini), and Phi-3.5-MoE: joint matrices, and rotary factors for short and long texts."""

from __future__ import annotations

import math

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, experts, linear, router
from quant.convert.facts import Facts
from quant.convert.family import Family, blk, f32, made, row, u32


def _rotated(facts: Facts) -> int:
    share = facts.config.rope.number("partial_rotary_factor", 1.0, least=0, below=1.01)
    return int(share * facts.number("hidden")) // facts.number("heads")


def _original(facts: Facts) -> int:
    return facts.config.rope.integer("original_max_position_embeddings", 4096)


def _factors(facts: Facts, key: str) -> tuple[float, ...]:
    """The divisors of the rotary frequencies; none without longrope's settings."""
    rope = facts.config.rope
    if not rope.values.get("long_factor"):
        return ()
    values, count = rope.values.get(key), _rotated(facts) // 2
    values = values if isinstance(values, list) else []
    if len(values) != count or not all(type(each) in (int, float) and abs(each) < 3e38 for each in values):
        raise facts.config.bad(f"{key} of rope_scaling is not a list of {count} numbers")
    return tuple(map(float, values))


def _attention_factor(facts: Facts) -> float | None:
    """How much sharper attention is in the longer context (LongRoPE, arXiv 2402.13753, section 3.3 of its code)."""
    rope = facts.config.rope
    if not rope.values.get("long_factor"):
        return None
    original, context = _original(facts), facts.config.integer("max_position_embeddings")
    scale, kind = context / original, rope.text("rope_type").lower()
    if scale <= 1 or original < 2:
        return 1.0
    return 0.1 * math.log(scale) + 1 if kind == "yarn" else math.sqrt(1 + math.log(scale) / math.log(original))


_FACTORS = (
    made("rope_factors_long.weight", lambda facts: _factors(facts, "long_factor")),
    made("rope_factors_short.weight", lambda facts: _factors(facts, "short_factor")),
)
_KEYS = (
    u32("rope.scaling.original_context_length", _original),
    u32("rope.dimension_count", _rotated),
    f32("rope.freq_base", lambda facts: facts.config.rope.positive("rope_theta")),
    f32("rope.scaling.attn_factor", _attention_factor),
    # Zero tells Phi 4, which has no window, from Phi 3.
    u32("attention.sliding_window", lambda facts: facts.config.integer("sliding_window", 0, least=0)),
)
# configuration_phi3.py and configuration_phimoe.py of transformers 4.57
_DEFAULTS: dict[str, object] = {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096}

PHI3 = Family(
    "phi3",
    classes=("Phi3ForCausalLM",),
    defaults=_DEFAULTS,
    tensors=(
        *_FACTORS,
        *EMBEDDING,
        *NORMS,
        *linear("attn_qkv", "self_attn.qkv_proj", "heads*head+2*kv_heads*head", "hidden"),
        *linear("attn_output", "self_attn.o_proj", "hidden", "heads*head"),
        *linear("ffn_up", "mlp.gate_up_proj", "2*ffn", "hidden"),
        *linear("ffn_down", "mlp.down_proj", "hidden", "ffn"),
        *OUTPUT,
    ),
    keys=_KEYS,
    without=("rope",),
)

PHI_MOE = Family(
    "phimoe",
    classes=("PhiMoEForCausalLM", "PhimoeForCausalLM"),
    defaults={
        **_DEFAULTS,
        "rope_theta": 1e6,
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "num_local_experts": 16,
        "num_experts_per_tok": 2,
    },
    tensors=(
        *_FACTORS,
        *EMBEDDING,
        *NORMS,
        blk("attn_norm.bias", "input_layernorm.bias", "hidden"),
        blk("ffn_norm.bias", "post_attention_layernorm.bias", "hidden"),
        *attention(bias="attention_bias", output_bias="attention_bias"),
        *router("block_sparse_moe.gate"),
        # w1 is the gate, w2 the way down, w3 the way up
        *experts("block_sparse_moe.experts", "ffn", names=("w1", "w2", "w3"), order=("gate", "down", "up")),
        *OUTPUT,
        row("output_norm.bias", "model.norm.bias", "hidden"),
        row("output.bias", "lm_head.bias", "vocab", when="lm_head_bias"),
    ),
    keys=_KEYS,
    without=("rope",),
)

FAMILIES = (PHI3, PHI_MOE)
