"""inclusionAI's Ling and Ring (Bailing MoE)."""

from __future__ import annotations

from quant.convert.blocks import OUTPUT, experts, feed_forward, linear, router, shared_experts
from quant.convert.facts import Facts
from quant.convert.families.deepseek import PREDICTING
from quant.convert.families.glm import rotated_part
from quant.convert.family import Family, blk, both, f32, flag, neither, row, u32
from quant.convert.transforms import cut, rotary

_EMBEDDING = row("token_embd.weight", "model.word_embeddings.weight", "vocab hidden")
_NORMS = (
    blk("attn_norm.weight", "input_layernorm.weight", "hidden"),
    blk("ffn_norm.weight", "post_attention_layernorm.weight", "hidden"),
)
_JOINED = "heads*head+kv_heads*head+kv_heads*head hidden"
_OF = "attention.query_key_value.weight"


def _is_sparse(facts: Facts, layer: int) -> bool:
    return layer >= facts.number("dense_layers")


_EXPERTS = (
    *router(when=_is_sparse),
    *experts(when=_is_sparse),
    *feed_forward(when=neither(_is_sparse)),
)
_SIZES = {"dense_layers": "first_k_dense_replace=0"}
_KEYS = (
    u32("leading_dense_block_count", "dense_layers"),
    u32("vocab_size", "vocab"),
    u32("expert_feed_forward_length", "expert_ffn"),
    u32("expert_shared_count", "shared_experts"),
    flag("expert_weights_norm", "norm_topk_prob"),
)

BAILING = Family(
    "bailingmoe",
    classes=("BailingMoeForCausalLM",),
    when="!norm_head",  # an output matrix that is normalised when the model is loaded
    # configuration_bailing_moe.py of inclusionAI/Ling-lite
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "norm_topk_prob": True, "first_k_dense_replace": 0},
    sizes=_SIZES,
    tensors=(
        _EMBEDDING,
        *_NORMS,
        blk("attn_q.weight", _OF, _JOINED, cut("0", "heads*head"), rotary("heads")),
        blk("attn_k.weight", _OF, _JOINED, cut("heads*head", "kv_heads*head"), rotary("kv_heads")),
        blk("attn_v.weight", _OF, _JOINED, cut("heads*head+kv_heads*head", "kv_heads*head")),
        *linear("attn_output", "attention.dense", "hidden", "heads*head"),
        *_EXPERTS,
        *shared_experts(when=both(_is_sparse, "num_shared_experts")),
        *OUTPUT,
    ),
    keys=(u32("rope.dimension_count", "head"), f32("expert_weights_scale", lambda facts: 1.0), *_KEYS),
)
BAILING2 = Family(
    "bailingmoe2",
    classes=("BailingMoeV2ForCausalLM",),
    # configuration_bailing_moe_v2.py of inclusionAI/Ling-mini-2.0
    defaults={"rms_norm_eps": 1e-6, "norm_topk_prob": True, "first_k_dense_replace": 0, "routed_scaling_factor": 1.0},
    sizes=_SIZES
    | {
        "shared_ffn": "moe_shared_expert_intermediate_size=all_shared",
        "all_shared": lambda facts, layer: facts.number("shared_experts*expert_ffn"),
    },
    tensors=(
        _EMBEDDING,
        *_NORMS,
        *linear(
            "attn_qkv",
            "attention.query_key_value",
            "heads*head+kv_heads*head+kv_heads*head",
            "hidden",
            bias="use_qkv_bias",
        ),
        *linear("attn_output", "attention.dense", "hidden", "heads*head", bias="use_bias"),
        blk("attn_q_norm.weight", "attention.query_layernorm.weight", "head", when="use_qk_norm"),
        blk("attn_k_norm.weight", "attention.key_layernorm.weight", "head", when="use_qk_norm"),
        *_EXPERTS,
        blk(
            "exp_probs_b.bias",
            "mlp.gate.expert_bias",
            "experts",
            when=both(_is_sparse, "moe_router_enable_expert_bias"),
        ),
        *shared_experts(ffn="shared_ffn", when=both(_is_sparse, "num_shared_experts")),
        *OUTPUT,
    ),
    keys=(
        u32("rope.dimension_count", rotated_part),
        *_KEYS,
        u32("expert_shared_feed_forward_length", "shared_ffn"),
        f32("expert_weights_scale", "routed_scaling_factor"),
        PREDICTING,
    ),
    has_mtp=True,
    mtp=(
        blk("nextn.enorm.weight", "enorm.weight", "hidden"),
        blk("nextn.hnorm.weight", "hnorm.weight", "hidden"),
        blk("nextn.eh_proj.weight", "eh_proj.weight", "hidden 2*hidden"),
        blk("layer_output_norm.weight", "final_layernorm.weight", "hidden"),
    ),
)

FAMILIES = (BAILING, BAILING2)
