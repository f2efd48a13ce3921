"""Llama 1 to 3.3, SmolLM, the R1 distillations of Llama; and Mixtral, which llama.cpp calls llama as well."""

from __future__ import annotations

import math

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, experts, feed_forward, router
from quant.convert.facts import Facts
from quant.convert.family import Family, made, u32


def rope_factors(facts: Facts) -> tuple[float, ...]:
    """Divisors of the rotary frequencies for Llama 3's longer context; empty for other kinds of scaling.

    Wavelengths below the original context over `high_freq_factor` stay, those above it over `low_freq_factor` are
    divided by `factor`, and between them one passes into the other (modeling_rope_utils.py of transformers)."""
    import numpy as np

    rope = facts.config.rope
    if rope.text("rope_type").lower() != "llama3":
        return ()
    factor = rope.number("factor", 8.0)
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    context = rope.number("original_max_position_embeddings", 8192)
    base, length = rope.number("rope_theta", 10000.0), facts.number("head")
    if low == high or min(factor, low, high, context, base) <= 0:
        raise facts.config.bad("the settings of llama3's rope_scaling contradict each other")

    one, tau = np.float32(1), np.float32(2 * math.pi)

    def divisor(number: int) -> float:
        # In float32 and in the order of torch's operations in the converter, so that the bits are the same.
        exponent = float(np.float32(number) / np.float32(length))
        frequency = one / np.float32(base**exponent)
        wavelength = one / frequency * tau
        if wavelength < context / high:
            return 1.0
        if wavelength > context / low:
            return factor
        smooth = (one / wavelength * np.float32(context) - np.float32(low)) / np.float32(high - low)
        return float(one / ((one - smooth) / np.float32(factor) + smooth))

    return tuple(divisor(number) for number in range(0, length, 2))


ROPE_FACTORS = made("rope_freqs.weight", rope_factors)
# llama.cpp writes these for all that it calls llama.
VOCABULARY_AND_ROTATION = (u32("vocab_size", "vocab"), u32("rope.dimension_count", "head"))
HEADS = (u32("attention.key_length", "head"), u32("attention.value_length", "head"))

LLAMA = Family(
    "llama",
    classes=("LlamaForCausalLM",),
    # configuration_llama.py of transformers 4.57
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    sentencepiece=True,
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        *NORMS,
        *attention(in_pairs=True, bias="attention_bias", output_bias="attention_bias"),
        *feed_forward(bias="mlp_bias"),
        *OUTPUT,
    ),
    keys=(*HEADS, *VOCABULARY_AND_ROTATION),
)

MIXTRAL = Family(
    "llama",
    classes=("MixtralForCausalLM",),
    # configuration_mixtral.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    sentencepiece=True,
    tensors=(
        *EMBEDDING,
        *NORMS,
        *attention(in_pairs=True),
        *router("block_sparse_moe.gate"),
        # w1 is the gate, w2 the way down, w3 the way up
        *experts("block_sparse_moe.experts", "ffn", names=("w1", "w2", "w3"), order=("gate", "down", "up")),
        *OUTPUT,
    ),
    keys=VOCABULARY_AND_ROTATION,
)

FAMILIES = (LLAMA, MIXTRAL)
