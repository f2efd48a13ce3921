"""Llama (LlamaForCausalLM): 1 to 3.3, SmolLM, and the R1 distillations of Llama."""

from __future__ import annotations

import math

from gguf import Keys

from quant.convert import blocks
from quant.convert.config import Config
from quant.convert.layout import Layout
from quant.convert.metadata import Metadata

# Defaults of transformers 4.57 for keys that config.json lacks (configuration_llama.py), also for the other families.
DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0}


def layout(config: Config) -> Layout:
    made = Layout("llama", config)
    factors = rope_factors(config)
    if factors:
        made.values("rope_freqs.weight", factors)
    blocks.embedding(made)
    for number in range(config.layers):
        layer = f"model.layers.{number}"
        bias = config.flag("attention_bias")
        blocks.norms(made, layer)
        blocks.attention(made, layer, in_pairs=True, qkv_bias=bias, output_bias=bias)
        blocks.feed_forward(made, f"{layer}.mlp", config.integer("intermediate_size"), bias=config.flag("mlp_bias"))
    blocks.output(made)
    return made


def describe(metadata: Metadata) -> None:
    config = metadata.config
    metadata.u32(Keys.Attention.KEY_LENGTH, config.head_length)
    metadata.u32(Keys.Attention.VALUE_LENGTH, config.head_length)
    rotary(metadata)


def rotary(metadata: Metadata) -> None:
    metadata.u32(Keys.LLM.VOCAB_SIZE, metadata.config.vocabulary)
    metadata.u32(Keys.Rope.DIMENSION_COUNT, metadata.config.head_length)


def rope_factors(config: Config) -> tuple[float, ...]:
    """Divisors of the rotary frequencies for Llama 3's longer context; empty for other kinds of scaling.

    Wavelengths below the original context over `high_freq_factor` stay, those above it over `low_freq_factor` are
    divided by `factor`, and between them one passes into the other (modeling_rope_utils.py of transformers)."""
    import numpy as np

    rope = config.rope
    if rope.text("rope_type").lower() != "llama3":
        return ()
    factor = rope.number("factor", 8.0)
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    context = rope.number("original_max_position_embeddings", 8192)
    base, length = rope.number("rope_theta", 10000.0), config.head_length
    if low == high or min(factor, low, high, context, base) <= 0:
        raise config.bad("the settings of llama3's rope_scaling contradict each other")

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
