"""OLMo 2 and 3 and OLMoE of the Allen Institute: norms behind attention and network, and across all heads at once."""

from __future__ import annotations

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    OUTPUT,
    attention,
    experts,
    feed_forward,
    fused_experts,
    router,
    sliding_pattern,
)
from quant.convert.family import Family, blk, f32, neither, stored, u32

# The defaults are those of transformers 4.57.
_DEFAULTS: dict[str, object] = {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048}
_HEAD_NORMS = (
    blk("attn_q_norm.weight", "self_attn.q_norm.weight", "heads*head"),
    blk("attn_k_norm.weight", "self_attn.k_norm.weight", "kv_heads*head"),
)
_ATTENTION = attention(bias="attention_bias", output_bias="attention_bias")
_TENSORS = (
    *EMBEDDING,
    *_ATTENTION,
    *_HEAD_NORMS,
    blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
    blk("post_ffw_norm.weight", "post_feedforward_layernorm.weight", "hidden"),
    *feed_forward(),
    *OUTPUT,
)

OLMO2 = Family("olmo2", classes=("Olmo2ForCausalLM",), defaults=_DEFAULTS, tensors=_TENSORS)
OLMO3 = Family(
    "olmo2",
    classes=("Olmo3ForCausalLM",),
    defaults={**_DEFAULTS, "sliding_window": 4096},
    tensors=_TENSORS,
    keys=(
        u32("attention.sliding_window", "sliding_window"),
        sliding_pattern(4),
    ),
)
_FUSED = stored("model.layers.{n}.mlp.experts.gate_up_proj")
OLMOE = Family(
    "olmoe",
    classes=("OlmoeForCausalLM",),
    defaults={**_DEFAULTS, "max_position_embeddings": 4096, "num_experts": 64, "num_experts_per_tok": 8},
    tensors=(
        *EMBEDDING,
        *NORMS,
        *_ATTENTION,
        *_HEAD_NORMS,
        *router(),
        *experts(ffn="ffn", when=neither(_FUSED)),
        *fused_experts(ffn="ffn", when=_FUSED),
        *OUTPUT,
    ),
    keys=(f32("attention.layer_norm_rms_epsilon", lambda facts: 1e-5),),
)

FAMILIES = (OLMO2, OLMO3, OLMOE)
