"""MiniMax: Text-01 and M1 with lightning attention in seven of eight layers, and M2."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, experts, linear, router
from quant.convert.facts import Facts
from quant.convert.family import Family, blk, f32, neither, u32

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


def _is_full(facts: Facts, layer: int) -> bool:
    """Whether a layer has softmax attention. The engine knows every eighth layer (src/models/minimax-01.cpp)."""
    kinds = facts.config.integers("attn_type_list")
    if kinds != tuple(int(number % 8 == 7) for number in range(facts.layers)):
        raise facts.config.bad("attn_type_list is not seven layers of linear and one of full attention in turn")
    return kinds[layer] == 1


def _residual(facts: Facts) -> float:
    """What residuals are multiplied by: one number for all, as the engine has it."""
    config = facts.config
    found = {config.number(f"layernorm_{kind}_alpha") for kind in ("full_attention", "linear_attention", "mlp")}
    others = {config.number(f"layernorm_{kind}_beta", 1.0) for kind in ("full_attention", "linear_attention", "mlp")}
    if len(found) > 1 or others != {1.0}:
        raise config.bad("the factors layernorm_*_alpha differ, or layernorm_*_beta are not 1")
    return found.pop()


MINIMAX1 = Family(
    "minimax-01",
    classes=("MiniMaxM1ForCausalLM", "MiniMaxText01ForCausalLM"),
    # configuration_minimax_m1.py of MiniMaxAI/MiniMax-M1-40k
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_key_value_heads": 8},
    tensors=(
        *EMBEDDING,
        *NORMS,
        *attention(when=_is_full),
        *linear("attn_qkv", "self_attn.qkv_proj", "3*heads*head", "hidden", when=neither(_is_full)),
        blk("attn_norm_2.weight", "self_attn.norm.weight", "heads*head", when=neither(_is_full)),
        *linear("attn_gate", "self_attn.output_gate", "heads*head", "hidden", when=neither(_is_full)),
        *linear("attn_output", "self_attn.out_proj", "hidden", "heads*head", when=neither(_is_full)),
        *router("block_sparse_moe.gate"),
        *_EXPERTS,
        *OUTPUT,
    ),
    keys=(f32("residual_scale", _residual), u32("rope.dimension_count", "rotary_dim")),
    suppresses=True,
)

FAMILIES = (MINIMAX1, MINIMAX2)
