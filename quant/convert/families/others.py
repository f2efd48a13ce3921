"""Single models of other makers: ByteDance's Seed-OSS, rednote's dots.llm1."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, experts, feed_forward, router, shared_experts
from quant.convert.facts import Facts
from quant.convert.families.llama import HEADS
from quant.convert.family import Family, blk, both, f32, flag, neither, u32

SEED = Family(
    "seed_oss",
    classes=("SeedOssForCausalLM",),
    # configuration_seed_oss.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_bias": True,
    },
    tensors=(
        *EMBEDDING,
        blk("attn_norm.weight", "input_layernorm.weight", "hidden"),
        blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
        *attention(bias="attention_bias", output_bias="attention_out_bias"),
        *feed_forward(bias="mlp_bias"),
        *OUTPUT,
    ),
    keys=HEADS,
)


def _is_sparse(facts: Facts, layer: int) -> bool:
    return layer >= facts.number("dense_layers")


DOTS1 = Family(
    "dots1",
    classes=("Dots1ForCausalLM",),
    # configuration_dots1.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "num_key_value_heads": 32,
        "first_k_dense_replace": 0,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "moe_intermediate_size": 1408,
    },
    sizes={"dense_layers": "first_k_dense_replace=0"},
    tensors=(
        *EMBEDDING,
        *NORMS,
        *attention(bias="attention_bias", output_bias="attention_bias", norm=True),
        *feed_forward(when=neither(_is_sparse)),
        *router(when=_is_sparse),
        blk("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", "experts", when=_is_sparse),
        *experts(when=_is_sparse),
        *shared_experts(when=both(_is_sparse, "n_shared_experts")),
        *OUTPUT,
    ),
    keys=(
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("leading_dense_block_count", "dense_layers"),
        u32("expert_shared_count", "shared_experts"),
        f32("expert_weights_scale", "routed_scaling_factor"),
        flag("expert_weights_norm", "norm_topk_prob"),
    ),
)

FAMILIES = (SEED, DOTS1)
