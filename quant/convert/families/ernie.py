"""Baidu's ERNIE 4.5, dense and with experts."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, experts, feed_forward, router, shared_experts
from quant.convert.facts import Facts
from quant.convert.families.llama import HEADS
from quant.convert.family import Family, blk, both, neither, u32

# configuration_ernie4_5.py and configuration_ernie4_5_moe.py of transformers 4.57
_DEFAULTS = {"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True}
_ATTENTION = attention(bias="use_bias", output_bias="use_bias")

ERNIE = Family(
    "ernie4_5",
    classes=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    defaults=_DEFAULTS | {"num_key_value_heads": 2, "head_dim": 128},
    tensors=(*EMBEDDING, *NORMS, *_ATTENTION, *feed_forward(bias="use_bias"), *OUTPUT),
    keys=HEADS,
)


def _is_sparse(facts: Facts, layer: int) -> bool:
    """Whether a layer has experts (Ernie4_5_MoeConfig of transformers)"""
    config = facts.config
    last = config.integer("moe_layer_end_index", -1, least=-1)
    inside = facts.number("first_sparse") <= layer <= (facts.layers - 1 if last < 0 else last)
    return inside and (layer + 1) % facts.number("moe_layer_interval") == 0


ERNIE_MOE = Family(
    "ernie4_5-moe",
    classes=("Ernie4_5_MoeForCausalLM",),
    defaults=_DEFAULTS
    | {
        "num_key_value_heads": 4,
        "moe_intermediate_size": 1536,
        "moe_k": 6,
        "moe_num_experts": 64,
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1,
        "moe_layer_interval": 1,
    },
    sizes={
        "experts": "moe_num_experts",
        "used_experts": "moe_k",
        "shared_experts": "moe_num_shared_experts=0",
        "first_sparse": "moe_layer_start_index=0",
    },
    tensors=(
        *EMBEDDING,
        *NORMS,
        *_ATTENTION,
        *router(when=_is_sparse),
        blk("exp_probs_b.bias", "mlp.moe_statics.e_score_correction_bias", "1 experts", when=_is_sparse),
        *experts(names=("gate_proj", "up_proj", "down_proj"), order=("gate", "up", "down"), when=_is_sparse),
        *shared_experts(when=both(_is_sparse, "moe_num_shared_experts")),
        *feed_forward(bias="use_bias", when=neither(_is_sparse)),
        *OUTPUT,
    ),
    keys=(
        u32("expert_count", "experts"),
        u32("expert_used_count", "used_experts"),
        u32("interleave_moe_layer_step", "moe_layer_interval"),
        u32("leading_dense_block_count", "first_sparse"),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_count", "shared_experts"),
        # The converter divides intermediate_size by the key-value heads, which is the same number in Baidu's models.
        u32("expert_shared_feed_forward_length", "shared_experts*expert_ffn", when="moe_num_shared_experts"),
    ),
    left_out=(r"model\.mtp_(block|emb_norm|hidden_norm|linear_proj)\..*",),
)

FAMILIES = (ERNIE, ERNIE_MOE)
