"""Tencent's Hunyuan, dense and with experts."""

from __future__ import annotations

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    UNTIED_OUTPUT,
    attention,
    experts,
    feed_forward,
    router,
    shared_experts,
)
from quant.convert.facts import Facts
from quant.convert.family import Family, Key, When, blk, f32, text, u32

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

FAMILIES = (HUNYUAN, HUNYUAN_MOE)
