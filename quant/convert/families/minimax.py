"""MiniMax M2."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, experts, router
from quant.convert.family import Family, blk, u32

_EXPERTS = experts("block_sparse_moe.experts", "ffn", names=("w1", "w2", "w3"), order=("gate", "down", "up"))

MINIMAX2 = Family(
    "minimax-m2",
    classes=("MiniMaxM2ForCausalLM",),
    # configuration_minimax_m2.py of MiniMaxAI/MiniMax-M2
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 5e6, "num_key_value_heads": 8},
    tensors=(
        *EMBEDDING,
        *NORMS,
        *attention(),
        # The norms are over all heads together.
        blk("attn_q_norm.weight", "self_attn.q_norm.weight", "heads*head"),
        blk("attn_k_norm.weight", "self_attn.k_norm.weight", "kv_heads*head"),
        *router("block_sparse_moe.gate"),
        blk("exp_probs_b.bias", "block_sparse_moe.e_score_correction_bias", "experts"),
        *_EXPERTS,
        *OUTPUT,
    ),
    keys=(u32("expert_feed_forward_length", "ffn"), u32("rope.dimension_count", "rotary_dim")),
)

FAMILIES = (MINIMAX2,)
