"""Jamba of AI21: Mamba layers, every few of them attention, every few networks experts."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, OUTPUT, attention, experts, feed_forward
from quant.convert.facts import Facts
from quant.convert.families.mamba import mamba1, time_step_rank
from quant.convert.family import Family, blk, f32, neither, row, u32


def _has_attention(facts: Facts, layer: int) -> bool:
    offset, period = facts.config.integer("attn_layer_offset", least=0), facts.config.integer("attn_layer_period")
    return layer >= offset and (layer - offset) % period == 0


def _is_sparse(facts: Facts, layer: int) -> bool:
    offset, period = facts.config.integer("expert_layer_offset", least=0), facts.config.integer("expert_layer_period")
    return facts.number("experts") > 1 and layer >= offset and (layer - offset) % period == 0


JAMBA = Family(
    "jamba",
    classes=("JambaForCausalLM",),
    # configuration_jamba.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": 8,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_proj_bias": False,
    },
    sizes={
        "inner": lambda facts, layer: facts.number("mamba_expand*hidden"),
        "state": "mamba_d_state",
        "kernel": "mamba_d_conv",
        "rank": time_step_rank("mamba_dt_rank"),
        "kv_heads": lambda facts, layer: facts.number("num_key_value_heads") if _has_attention(facts, layer) else 0,
    },
    without=("rope", "attention.key_length"),
    tensors=(
        *EMBEDDING,
        blk("attn_norm.weight", "input_layernorm.weight", "hidden"),
        blk("ffn_norm.weight", "pre_ff_layernorm.weight", "hidden"),
        *attention(when=_has_attention),
        *mamba1("mamba", bias="mamba_proj_bias", when=neither(_has_attention)),
        blk("ssm_dt_norm.weight", "mamba.dt_layernorm.weight", "rank", when=neither(_has_attention)),
        blk("ssm_b_norm.weight", "mamba.b_layernorm.weight", "state", when=neither(_has_attention)),
        blk("ssm_c_norm.weight", "mamba.c_layernorm.weight", "state", when=neither(_has_attention)),
        blk("ffn_gate_inp.weight", "feed_forward.router.weight", "experts hidden", when=_is_sparse),
        *experts("feed_forward.experts", "ffn", when=_is_sparse),
        *feed_forward("feed_forward", when=neither(_is_sparse)),
        *OUTPUT[:-1],
        row("output_norm.weight", "model.final_layernorm.weight", "hidden"),
    ),
    keys=(
        u32("ssm.conv_kernel", "kernel"),
        u32("ssm.inner_size", "inner"),
        u32("ssm.state_size", "state"),
        u32("ssm.time_step_rank", "rank"),
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ),
)

FAMILIES = (JAMBA,)
