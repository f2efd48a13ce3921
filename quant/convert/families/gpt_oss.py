"""gpt-oss: sinks of attention, experts with biases that are published in MXFP4 and carried over bit for bit."""

from __future__ import annotations

from dataclasses import replace

from quant.convert.blocks import EMBEDDING, OUTPUT, attention
from quant.convert.facts import Facts
from quant.convert.family import Family, Row, blk, holds, neither, stored, u32
from quant.convert.transforms import Transform, cut, cut_columns, transpose

_PACKED = "mlp.experts.down_proj_blocks"


def _is_packed(facts: Facts, layer: int) -> bool:
    """Whether the experts are in MXFP4; a config.json alone says so with quantization_config."""
    if facts.stored:
        return holds(stored(f"model.layers.{{n}}.{_PACKED}"), facts, layer)
    return facts.config.has("quantization_config")


def _packed(to: str, of: str, shape: str, *by: Transform) -> Row:
    """llama.cpp's converter writes these before all others."""
    return replace(blk(to, of, shape, *by, when=_is_packed), early=True)


# Rows of gate and up alternate. In BF16 the matrices are transposed.
_JOINT, _PLAIN = "experts 2*ffn hidden", "experts hidden 2*ffn"
GPT_OSS = Family(
    "gpt-oss",
    classes=("GptOssForCausalLM",),
    # configuration_gpt_oss.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0,
        "head_dim": 64,
        "num_key_value_heads": 8,
        "sliding_window": 128,
        "max_position_embeddings": 131072,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "attention_bias": True,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 4096,
        },
    },
    tensors=(
        *EMBEDDING,
        blk("attn_norm.weight", "input_layernorm.weight", "hidden"),
        blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
        *attention(bias="attention_bias", output_bias="attention_bias"),
        blk("attn_sinks.weight", "self_attn.sinks", "heads"),
        blk("ffn_gate_inp.weight", "mlp.router.weight", "experts hidden"),
        blk("ffn_gate_inp.bias", "mlp.router.bias", "experts"),
        _packed("ffn_down_exps.weight", _PACKED, "experts hidden ffn"),
        _packed("ffn_gate_exps.weight", "mlp.experts.gate_up_proj_blocks", _JOINT, cut("0", "ffn", 2)),
        _packed("ffn_up_exps.weight", "mlp.experts.gate_up_proj_blocks", _JOINT, cut("1", "ffn", 2)),
        *(
            blk(to, of, shape, *by, when=neither(_is_packed))
            for to, of, shape, by in (
                ("ffn_down_exps.weight", "mlp.experts.down_proj", "experts ffn hidden", (transpose,)),
                ("ffn_gate_exps.weight", "mlp.experts.gate_up_proj", _PLAIN, (cut_columns("0", "ffn", 2), transpose)),
                ("ffn_up_exps.weight", "mlp.experts.gate_up_proj", _PLAIN, (cut_columns("1", "ffn", 2), transpose)),
            )
        ),
        blk("ffn_down_exps.bias", "mlp.experts.down_proj_bias", "experts hidden"),
        blk("ffn_gate_exps.bias", "mlp.experts.gate_up_proj_bias", "experts 2*ffn", cut_columns("0", "ffn", 2)),
        blk("ffn_up_exps.bias", "mlp.experts.gate_up_proj_bias", "experts 2*ffn", cut_columns("1", "ffn", 2)),
        *OUTPUT,
    ),
    keys=(u32("attention.sliding_window", "sliding_window"), u32("expert_feed_forward_length", "ffn")),
)

FAMILIES = (GPT_OSS,)
