"""Apertus of the Swiss AI initiative: a network without a gate, whose activation (xIELU) has numbers for each layer."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, OUTPUT, attention, linear
from quant.convert.families.llama import ROPE_FACTORS, VOCABULARY_AND_ROTATION
from quant.convert.family import Family, blk

APERTUS = Family(
    "apertus",
    classes=("ApertusForCausalLM",),
    # configuration_apertus.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 12e6,
        "max_position_embeddings": 65536,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    },
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        blk("attn_norm.weight", "attention_layernorm.weight", "hidden"),
        blk("ffn_norm.weight", "feedforward_layernorm.weight", "hidden"),
        *attention(bias="attention_bias", output_bias="attention_bias", norm=True),
        *linear("ffn_up", "mlp.up_proj", "ffn", "hidden"),
        *linear("ffn_down", "mlp.down_proj", "hidden", "ffn"),
        *OUTPUT,
    ),
    keys=VOCABULARY_AND_ROTATION,
    numbers=tuple(
        (f".xielu.{name}", f"model.layers.{{n}}.mlp.act_fn.{name}") for name in ("alpha_n", "alpha_p", "beta", "eps")
    ),
    left_out=(r"model\.layers\.\d+\.mlp\.act_fn\.(?:alpha_n|alpha_p|beta|eps)",),
)

FAMILIES = (APERTUS,)
