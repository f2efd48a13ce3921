"""Tencent's Hunyuan, dense and with experts, and Hy3."""

from __future__ import annotations

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    OUTPUT,
    SIGMOID,
    UNTIED_OUTPUT,
    attention,
    experts,
    feed_forward,
    router,
    shared_experts,
)
from quant.convert.facts import Facts
from quant.convert.families.deepseek import PREDICTING
from quant.convert.family import Family, Key, When, blk, both, f32, flag, neither, text, u32

# configuration_hunyuan_v1_dense.py and configuration_hunyuan_v1_moe.py of transformers 4.57
_DEFAULTS = {"rms_norm_eps": 1e-5, "rope_theta": 10000.0}
_NORMED_ATTENTION = (
    *attention(bias="attention_bias", output_bias="attention_bias"),
    blk("attn_q_norm.weight", "self_attn.query_layernorm.weight", "head"),
    blk("attn_k_norm.weight", "self_attn.key_layernorm.weight", "head"),
)
_CONTEXT = 256 * 1024  # what the rotation reaches; config.json says 32k (HunYuanModel in conversion/hunyuan.py)


def _is_dynamic(facts: Facts, layer: int) -> bool:
    return facts.config.rope.text("rope_type") == "dynamic"


def _rotation(alpha: float) -> tuple[Key, ...]:
    """A larger base instead of scaled frequencies ("NTK-aware" with a fixed alpha)."""

    def base(facts: Facts) -> float:
        rope, length = facts.config.rope, facts.number("head")
        if length < 4:
            raise facts.config.bad(f"heads of {length} elements are too short to be rotated")
        return float(rope.positive("rope_theta", 10000.0) * (rope.positive("alpha", alpha) ** (length / (length - 2))))

    when: When = _is_dynamic
    return (
        f32("rope.freq_base", base, when=when),
        text("rope.scaling.type", lambda facts: "none", when=when),
        f32("rope.scaling.factor", lambda facts: 1.0, when=when),
        u32("rope.scaling.original_context_length", lambda facts: _CONTEXT, when=when),
        u32("context_length", lambda facts: _CONTEXT, when=when),
    )


HUNYUAN = Family(
    "hunyuan-dense",
    classes=("HunYuanDenseV1ForCausalLM",),
    defaults=_DEFAULTS,
    tensors=(*EMBEDDING, *NORMS, *_NORMED_ATTENTION, *feed_forward(), *UNTIED_OUTPUT),
    keys=_rotation(50.0),
    without=("experts",),
    left_out=(r"lm_head\.weight",),
)
HUNYUAN_MOE = Family(
    "hunyuan-moe",
    classes=("HunYuanMoEV1ForCausalLM",),
    defaults=_DEFAULTS,
    # Lists with a number for each layer, all the same
    sizes={"used_experts": "moe_topk", "shared_count": "num_shared_expert"},
    tensors=(
        *EMBEDDING,
        *NORMS,
        *_NORMED_ATTENTION,
        *router("mlp.gate.wg"),
        *experts(),
        *shared_experts("mlp.shared_mlp", "shared_count*ffn"),
        *UNTIED_OUTPUT,
    ),
    keys=(
        u32("expert_shared_feed_forward_length", "ffn"),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_count", "shared_count"),
        *_rotation(1000.0),
    ),
    left_out=(r"lm_head\.weight",),
)


def _is_sparse(facts: Facts, layer: int) -> bool:
    return layer >= facts.number("dense_layers")


HY3 = Family(
    "hy_v3",
    classes=("HYV3ForCausalLM",),
    # configuration_hy_v3.py of transformers 5
    defaults={
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "route_norm": True,
        "router_scaling_factor": 1.0,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    sizes={"dense_layers": "first_k_dense_replace=0"},
    tensors=(
        *EMBEDDING,
        *NORMS,
        *attention(norm=True),
        *feed_forward(when=neither(_is_sparse)),
        *router("mlp.router.gate", when=_is_sparse),
        blk("exp_probs_b", "mlp.expert_bias", "experts", when=_is_sparse),
        *experts(when=_is_sparse),
        *shared_experts("mlp.shared_mlp", when=both(_is_sparse, "num_shared_experts")),
        *OUTPUT,
    ),
    keys=(
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_feed_forward_length", "shared_experts*expert_ffn"),
        flag("expert_weights_norm", "route_norm"),
        f32("expert_weights_scale", "router_scaling_factor"),
        u32("expert_gating_func", lambda facts: SIGMOID),
        PREDICTING,
    ),
    has_mtp=True,
    mtp=(
        blk("nextn.enorm.weight", "enorm.weight", "hidden"),
        blk("nextn.hnorm.weight", "hnorm.weight", "hidden"),
        blk("nextn.eh_proj.weight", "eh_proj.weight", "hidden 2*hidden"),
        blk("nextn.shared_head_norm.weight", "final_layernorm.weight", "hidden"),
    ),
)

FAMILIES = (HUNYUAN, HUNYUAN_MOE, HY3)
