"""GLM-4, GLM-4.5 to 4.7 (with experts), GLM-4.7 Flash and GLM-5 (with DeepSeek's compressed attention); and Solar Open,
which is like GLM-4.5."""

from __future__ import annotations

from dataclasses import replace

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    OUTPUT,
    SIGMOID,
    attention,
    experts,
    feed_forward,
    head_norms,
    linear,
    router,
    shared_experts,
)
from quant.convert.facts import Facts
from quant.convert.families import deepseek
from quant.convert.family import Family, blk, both, f32, flag, neither, u32

_ATTENTION_NORM = blk("attn_norm.weight", "input_layernorm.weight", "hidden")


def rotated_part(facts: Facts) -> int:
    """Elements of a head that are rotated; half of them where config.json does not say."""
    return int(facts.number("head") * facts.config.rope.number("partial_rotary_factor", 0.5, least=0, below=2))


GLM4 = Family(
    "glm4",
    classes=("Glm4ForCausalLM",),
    # configuration_glm4.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1.5625e-07,
        "rope_theta": 10000.0,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "attention_bias": True,
    },
    tensors=(
        *EMBEDDING,
        *NORMS,
        blk("post_attention_norm.weight", "post_self_attn_layernorm.weight", "hidden"),
        blk("post_ffw_norm.weight", "post_mlp_layernorm.weight", "hidden"),
        *attention(bias="attention_bias"),
        *linear("ffn_up", "mlp.gate_up_proj", "2*ffn", "hidden"),
        *linear("ffn_down", "mlp.down_proj", "hidden", "ffn"),
        *OUTPUT,
    ),
    keys=(u32("rope.dimension_count", rotated_part),),
)


def _is_sparse(facts: Facts, layer: int) -> bool:
    return layer >= facts.number("first_k_dense_replace")


# What layers for multi-token prediction have besides a layer's own tensors. Some models leave out the copies of the
# embeddings and of the output.
_PREDICTION = tuple(
    replace(each, optional=True) if "embed_tokens" in each.to or "shared_head_head" in each.to else each
    for each in deepseek.PREDICTION
)
GLM4_MOE = Family(
    "glm4moe",
    classes=("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"),
    # configuration_glm4_moe.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "num_key_value_heads": 8,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "moe_intermediate_size": 1408,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
    },
    sizes={"first_k_dense_replace": "first_k_dense_replace=0"},
    tensors=(
        *EMBEDDING,
        _ATTENTION_NORM,
        blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
        *attention(bias="attention_bias"),
        *head_norms(when="use_qk_norm"),
        *router(when=_is_sparse),
        blk("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", "experts", when=_is_sparse),
        *experts(when=_is_sparse),
        *shared_experts(when=both(_is_sparse, "n_shared_experts")),
        *feed_forward(when=neither(_is_sparse)),
        *OUTPUT,
    ),
    keys=(
        u32("rope.dimension_count", rotated_part),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_count", "shared_experts"),
        u32("leading_dense_block_count", "first_k_dense_replace"),
        u32("expert_gating_func", lambda facts: SIGMOID),
        f32("expert_weights_scale", "routed_scaling_factor", optional=True),
        flag("expert_weights_norm", "norm_topk_prob", optional=True),
        deepseek.PREDICTING,
    ),
    has_mtp=True,
    mtp=_PREDICTION,
)
SOLAR = replace(
    GLM4_MOE,
    classes=("SolarOpenForCausalLM",),
    # configuration_solar_open.py of transformers 5
    defaults={**(GLM4_MOE.defaults or {}), "rope_theta": 1e6, "head_dim": 128, "moe_intermediate_size": 1280},
    has_mtp=False,
    mtp=(),
)

GLM4_LITE = Family(
    "deepseek2",
    classes=("Glm4MoeLiteForCausalLM",),
    # configuration_glm4_moe_lite.py of transformers 5
    defaults=deepseek.DEFAULTS_3
    | {
        "rms_norm_eps": 1e-5,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "moe_intermediate_size": 1536,
        "n_routed_experts": 64,
        "num_experts_per_tok": 4,
        "routed_scaling_factor": 1.8,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    sizes=deepseek.SIZES,
    tensors=deepseek.TENSORS,
    keys=deepseek.KEYS,
    left_out=(r"lm_head\.weight",),
    has_mtp=True,
    mtp=_PREDICTION,
)


def _has_indexer(facts: Facts, layer: int) -> bool:
    """Layers of the kind "shared" use what the indexer of an earlier layer chose (GLM-5.2)."""
    kinds = _indexer_types(facts)
    return layer >= len(kinds) or kinds[layer]


def _indexer_types(facts: Facts) -> list[bool]:
    kinds = facts.config.values.get("indexer_types")
    if kinds is None:
        return []
    if not isinstance(kinds, list) or len(kinds) > facts.all_layers:
        raise facts.config.bad("indexer_types is not a list with one text for each layer")
    return [kind == "full" for kind in kinds]


GLM5 = replace(
    deepseek.DEEPSEEK32,
    architecture="glm-dsa",
    classes=("GlmMoeDsaForCausalLM",),
    # configuration_glm_moe_dsa.py of transformers 5
    defaults=deepseek.DEFAULTS_3
    | {
        "rms_norm_eps": 1e-5,
        "q_lora_rank": 2048,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "n_group": 1,
        "topk_group": 1,
        "index_topk": 2048,
        "index_head_dim": 128,
        "index_n_heads": 32,
    },
    tensors=(*deepseek.TENSORS, *deepseek.indexer(_has_indexer)),
    keys=(
        *deepseek.KEYS,
        *deepseek.INDEXER_KEYS,
        flag("attention.indexer.types", _indexer_types, when="indexer_types"),
    ),
    mtp=_PREDICTION,
)

FAMILIES = (GLM4, GLM4_MOE, SOLAR, GLM4_LITE, GLM5)
