"""Arcee's AFM and its successor with experts, AFMoE (Trinity)."""

from __future__ import annotations

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    OUTPUT,
    attention,
    experts,
    feed_forward,
    linear,
    router,
    shared_experts,
)
from quant.convert.facts import Facts
from quant.convert.families.llama import HEADS, ROPE_FACTORS, VOCABULARY_AND_ROTATION
from quant.convert.family import Family, blk, both, f32, flag, neither, u32

ARCEE = Family(
    "arcee",
    classes=("ArceeForCausalLM",),
    # configuration_arcee.py of transformers 4.57
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        *NORMS,
        *attention(in_pairs=True, bias="attention_bias", output_bias="attention_bias"),
        *linear("ffn_up", "mlp.up_proj", "ffn", "hidden", bias="mlp_bias"),
        *linear("ffn_down", "mlp.down_proj", "hidden", "ffn", bias="mlp_bias"),
        *OUTPUT,
    ),
    keys=(*HEADS, *VOCABULARY_AND_ROTATION),
)


def _is_sparse(facts: Facts, layer: int) -> bool:
    return layer >= facts.number("num_dense_layers")


AFMOE = Family(
    "afmoe",
    classes=("AfmoeForCausalLM",),
    # configuration_afmoe.py of transformers 5
    defaults={
        "rms_norm_eps": 1e-5,
        "num_dense_layers": 1,
        "rope_theta": 10000.0,
        "num_shared_experts": 2,
        "sliding_window": 1024,
        "mup_enabled": False,
    },
    sizes={"num_dense_layers": "num_dense_layers=0"},
    tensors=(
        *EMBEDDING,
        blk("attn_norm.weight", "input_layernorm.weight", "hidden"),
        blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
        blk("ffn_norm.weight", "pre_mlp_layernorm.weight", "hidden"),
        blk("post_ffw_norm.weight", "post_mlp_layernorm.weight", "hidden"),
        *attention(norm=True),
        *linear("attn_gate", "self_attn.gate_proj", "heads*head", "hidden"),
        *feed_forward(when=neither(_is_sparse)),
        *router("mlp.router.gate", when=_is_sparse),
        blk("exp_probs_b.bias", "mlp.expert_bias", "experts", when=_is_sparse),
        *experts(names=("gate_proj", "up_proj", "down_proj"), order=("gate", "up", "down"), when=_is_sparse),
        *shared_experts(when=both(_is_sparse, "num_shared_experts")),
        *OUTPUT,
    ),
    keys=(
        *VOCABULARY_AND_ROTATION,
        u32("expert_shared_count", "shared_experts"),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("leading_dense_block_count", "num_dense_layers"),
        flag("expert_weights_norm", "route_norm", optional=True),
        f32("expert_weights_scale", "route_scale", optional=True),
        u32("attention.sliding_window", "sliding_window", optional=True),
    ),
)

FAMILIES = (ARCEE, AFMOE)
