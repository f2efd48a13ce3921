"""Gemma 1, 2 and 3."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, attention, feed_forward, head_norms
from quant.convert.family import Family, Row, blk, f32, row, u32
from quant.convert.transforms import Transform, plus

# The engine takes 10,000 without this key, which llama.cpp's converter never writes for these models.
OTHER_THETA = f32(
    "rope.freq_base",
    lambda facts: facts.config.rope.positive("rope_theta", 1e4),
    when=lambda facts, layer: facts.config.rope.positive("rope_theta", 1e4) != 1e4,
)
LENGTHS = (u32("attention.key_length", "head"), u32("attention.value_length", "head"))
_PLUS_ONE = plus(1)  # norms are stored as the difference from one
# Embeddings are tied; some quantized checkpoints have a copy of them.
_COPY = (r"lm_head\.weight",)


def norms_around(*by: Transform) -> tuple[Row, ...]:
    """The norms before and behind attention and feed-forward network, and the last one."""
    return (
        blk("attn_norm.weight", "input_layernorm.weight", "hidden", *by),
        blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden", *by),
        blk("ffn_norm.weight", "pre_feedforward_layernorm.weight", "hidden", *by),
        blk("post_ffw_norm.weight", "post_feedforward_layernorm.weight", "hidden", *by),
        row("output_norm.weight", "model.norm.weight", "hidden", *by),
    )


# The defaults are those of configuration_gemma.py, _gemma2.py and _gemma3.py of transformers 4.57.
_DEFAULTS: dict[str, object] = {"rms_norm_eps": 1e-6, "head_dim": 256, "tie_word_embeddings": True}
GEMMA = Family(
    "gemma",
    classes=("GemmaForCausalLM",),
    defaults={**_DEFAULTS, "max_position_embeddings": 8192, "num_key_value_heads": 16},
    tensors=(
        *EMBEDDING,
        blk("attn_norm.weight", "input_layernorm.weight", "hidden", _PLUS_ONE),
        blk("ffn_norm.weight", "post_attention_layernorm.weight", "hidden", _PLUS_ONE),
        row("output_norm.weight", "model.norm.weight", "hidden", _PLUS_ONE),
        *attention(bias="attention_bias", output_bias="attention_bias"),
        *feed_forward(),
    ),
    keys=(*LENGTHS, OTHER_THETA),
    without=("rope",),
    left_out=_COPY,
)

GEMMA2 = Family(
    "gemma2",
    classes=("Gemma2ForCausalLM",),
    defaults={
        **_DEFAULTS,
        "max_position_embeddings": 8192,
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    tensors=(*EMBEDDING, *norms_around(_PLUS_ONE), *attention(), *feed_forward()),
    keys=(
        *LENGTHS,
        OTHER_THETA,
        f32("attn_logit_softcapping", "attn_logit_softcapping"),
        f32("final_logit_softcapping", "final_logit_softcapping"),
        u32("attention.sliding_window", "sliding_window"),
    ),
    without=("rope",),
    left_out=_COPY,
)

GEMMA3 = Family(
    "gemma3",
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    defaults={
        **_DEFAULTS,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "rope_theta": 1e6,
        "rope_local_base_freq": 10000.0,
        "sliding_window": 4096,
    },
    tensors=(
        *EMBEDDING,
        row("output.weight", "lm_head.weight", "vocab hidden", optional=True),
        *norms_around(_PLUS_ONE),
        *attention(),
        *head_norms("self_attn", _PLUS_ONE),
        *feed_forward(),
    ),
    keys=(
        f32("final_logit_softcapping", "final_logit_softcapping", when="final_logit_softcapping"),
        u32(
            "attention.sliding_window",
            "sliding_window",
            when=lambda facts, layer: facts.config.values.get("sliding_window_pattern") != 1,
        ),
    ),
)

FAMILIES = (GEMMA, GEMMA2, GEMMA3)
