"""Kimi-Linear of Moonshot: layers of linear attention (KDA) among layers of compressed attention (MLA); experts."""

from __future__ import annotations

from collections.abc import Mapping

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, experts, feed_forward, linear, shared_experts
from quant.convert.config import Config
from quant.convert.facts import Facts, Size
from quant.convert.families import deepseek
from quant.convert.family import Family, blk, f32, neither, u32, where
from quant.convert.metadata import by_layer
from quant.convert.transforms import negative_exponential, reshape


def _settings(facts: Facts) -> Config:
    """The settings of linear attention, an object within config.json."""
    found = facts.config.values.get("linear_attn_config")
    if not isinstance(found, Mapping):
        raise facts.config.bad("linear_attn_config is not a JSON object")
    return Config(found, facts.config.path)


def _is_linear(facts: Facts, layer: int) -> bool:
    """Layers are counted from one there."""
    return layer + 1 not in _settings(facts).integers("full_attn_layers")


def _is_sparse(facts: Facts, layer: int) -> bool:
    return layer >= facts.number("first_k_dense_replace")


_SIZES: dict[str, Size] = {
    "key_rank": "kv_lora_rank",
    "query_rank": "q_lora_rank",
    "plain": "qk_nope_head_dim",
    "rotated": "qk_rope_head_dim",
    "value": "v_head_dim",
    "kv_heads": lambda facts, layer: 0 if _is_linear(facts, layer) else 1,
    "linear_head": lambda facts, layer: _settings(facts).integer("head_dim", most=1 << 14),
    "inner": lambda facts, layer: facts.number("heads*linear_head"),
    "kernel": lambda facts, layer: _settings(facts).integer("short_conv_kernel_size", most=1 << 10),
}
_CONVOLUTIONS = tuple(
    blk(
        f"ssm_conv1d_{each}.weight",
        f"self_attn.{each}_conv1d.weight",
        "inner 1 kernel",
        reshape("1 inner 1 kernel"),
        when=_is_linear,
    )
    for each in "qkv"
)
KIMI_LINEAR = Family(
    "kimi-linear",
    classes=("KimiLinearForCausalLM", "KimiLinearModel"),
    # configuration_kimi_linear.py of transformers 5
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "first_k_dense_replace": 1,
        "q_lora_rank": None,
        "num_shared_experts": 1,
        "routed_scaling_factor": 2.446,
        "moe_router_activation_func": "sigmoid",
    },
    sizes=_SIZES,
    without=("attention.key_length",),
    tensors=(
        *EMBEDDING,
        *NORMS,
        *where(neither(_is_linear), deepseek.ATTENTION),
        *_CONVOLUTIONS,
        *linear("attn_q", "self_attn.q_proj", "inner", "hidden", when=_is_linear),
        *linear("attn_k", "self_attn.k_proj", "inner", "hidden", when=_is_linear),
        *linear("attn_v", "self_attn.v_proj", "inner", "hidden", when=_is_linear),
        *linear("ssm_f_a", "self_attn.f_a_proj", "linear_head", "hidden", when=_is_linear),
        *linear("ssm_f_b", "self_attn.f_b_proj", "inner", "linear_head", when=_is_linear),
        *linear("ssm_beta", "self_attn.b_proj", "heads", "hidden", when=_is_linear),
        *linear("ssm_g_a", "self_attn.g_a_proj", "linear_head", "hidden", when=_is_linear),
        *linear("ssm_g_b", "self_attn.g_b_proj", "inner", "linear_head", when=_is_linear),
        blk("ssm_a", "self_attn.A_log", "1 1 heads 1", negative_exponential, when=_is_linear),
        blk("ssm_dt.bias", "self_attn.dt_bias", "inner", when=_is_linear),
        blk("ssm_norm.weight", "self_attn.o_norm.weight", "linear_head", when=_is_linear),
        *linear("attn_output", "self_attn.o_proj", "hidden", "inner", when=_is_linear),
        *feed_forward(when=neither(_is_sparse)),
        blk("ffn_gate_inp.weight", "block_sparse_moe.gate.weight", "experts hidden", when=_is_sparse),
        blk("exp_probs_b.bias", "block_sparse_moe.gate.e_score_correction_bias", "experts", when=_is_sparse),
        *experts("block_sparse_moe.experts", names=("w1", "w2", "w3"), order=("gate", "down", "up"), when=_is_sparse),
        *shared_experts("block_sparse_moe.shared_experts", when=_is_sparse),
        *OUTPUT,
    ),
    keys=(
        u32("attention.head_count_kv", by_layer("kv_heads")),
        u32("vocab_size", "vocab"),
        u32("ssm.conv_kernel", "kernel"),
        u32("kda.head_dim", "linear_head"),
        u32("attention.q_lora_rank", "query_rank", when="q_lora_rank"),
        u32("attention.kv_lora_rank", "key_rank"),
        u32("rope.dimension_count", "rotated"),
        u32("attention.key_length", "key_rank+rotated"),
        u32("attention.key_length_mla", "plain+rotated"),
        u32("attention.value_length_mla", "value"),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_count", "shared_experts"),
        u32("leading_dense_block_count", "first_k_dense_replace"),
        f32("expert_weights_scale", "routed_scaling_factor"),
    ),
)

FAMILIES = (KIMI_LINEAR,)
