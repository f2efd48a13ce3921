"""Falcon-H1 of TII: attention and Mamba-2 side by side in every layer. Its multipliers are part of the weights."""

from __future__ import annotations

from quant.convert.blocks import linear
from quant.convert.facts import Facts
from quant.convert.families import mamba
from quant.convert.family import Family, blk, row, u32
from quant.convert.transforms import scaled, scaled_by, scaled_parts

_INTO_ATTENTION = scaled("attention_in_multiplier")


def _inner(facts: Facts, layer: int) -> int:
    return facts.number("mamba_d_ssm" if facts.config.has("mamba_d_ssm") else "mamba_expand*hidden")


# z, x, B, C and the time step, which are computed together
_SSM_PARTS = scaled_parts("ssm_multipliers", "inner", "inner", "groups*state", "groups*state", "ssm_heads")
_MAMBA = mamba.mamba2("mamba", bias="mamba_proj_bias")

FALCON_H1 = Family(
    "falcon-h1",
    classes=("FalconH1ForCausalLM",),
    # configuration_falcon_h1.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e5,
        "num_key_value_heads": 8,
        "mamba_d_ssm": 1024,
        "mamba_n_heads": 128,
        "mamba_n_groups": 1,
        "mamba_d_state": 256,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mlp_multipliers": [1.0, 1.0],
        "ssm_multipliers": [1.0] * 5,
        **dict.fromkeys(("lm_head_multiplier", "embedding_multiplier", "key_multiplier"), 1.0),
        **dict.fromkeys(("attention_out_multiplier", "attention_in_multiplier"), 1.0),
        **dict.fromkeys(("ssm_in_multiplier", "ssm_out_multiplier"), 1.0),
    },
    sizes={
        **mamba.SIZES,
        "inner": _inner,
        "groups": "mamba_n_groups",
        "state": "mamba_d_state",
        "kernel": "mamba_d_conv",
        "ssm_heads": "mamba_n_heads",
    },
    tensors=(
        row("token_embd.weight", "model.embed_tokens.weight", "vocab hidden", scaled("embedding_multiplier")),
        blk("attn_norm.weight", "input_layernorm.weight", "hidden"),
        blk("ffn_norm", "pre_ff_layernorm.weight", "hidden"),
        *linear("attn_q", "self_attn.q_proj", "heads*head", "hidden", _INTO_ATTENTION),
        *linear(
            "attn_k",
            "self_attn.k_proj",
            "kv_heads*head",
            "hidden",
            scaled("key_multiplier"),
            _INTO_ATTENTION,
        ),
        *linear("attn_v", "self_attn.v_proj", "kv_heads*head", "hidden", _INTO_ATTENTION),
        *linear("attn_output", "self_attn.o_proj", "hidden", "heads*head", scaled("attention_out_multiplier")),
        *(each for each in _MAMBA if each.to.endswith(("conv1d.weight", "conv1d.bias", "dt.bias", "ssm_a", "ssm_d"))),
        *linear(
            "ssm_in",
            "mamba.in_proj",
            "2*inner+2*groups*state+ssm_heads",
            "hidden",
            scaled("ssm_in_multiplier"),
            _SSM_PARTS,
        ),
        *linear("ssm_out", "mamba.out_proj", "hidden", "inner", scaled("ssm_out_multiplier")),
        blk(
            "ssm_norm.weight",
            "mamba.norm.weight",
            "inner",
            mamba.BY_GROUP,
            when="mamba_rms_norm",
        ),
        *linear("ffn_gate", "feed_forward.gate_proj", "ffn", "hidden", scaled_by("mlp_multipliers", 0)),
        *linear("ffn_up", "feed_forward.up_proj", "ffn", "hidden"),
        *linear("ffn_down", "feed_forward.down_proj", "hidden", "ffn", scaled_by("mlp_multipliers", 1)),
        row("output_norm.weight", "model.final_layernorm.weight", "hidden"),
        row(
            "output.weight",
            "lm_head.weight",
            "vocab hidden",
            scaled("lm_head_multiplier"),
            when="!tie_word_embeddings",
        ),
    ),
    keys=(
        u32("vocab_size", "vocab"),
        u32("ssm.conv_kernel", "kernel"),
        u32("ssm.inner_size", "inner"),
        u32("ssm.state_size", "state"),
        u32("ssm.time_step_rank", lambda facts: facts.number("inner") // facts.config.integer("mamba_d_head")),
        u32("ssm.group_count", "groups"),
        u32("attention.key_length", "head"),
        u32("attention.value_length", "head"),
    ),
)

FAMILIES = (FALCON_H1,)
