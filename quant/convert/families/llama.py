"""Llama 1 to 4, SmolLM, the R1 distillations of Llama; and Mixtral, which llama.cpp calls llama as well."""

from __future__ import annotations

import math

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, experts, feed_forward, router, shared_experts
from quant.convert.facts import Facts
from quant.convert.family import Family, blk, made, neither, u32
from quant.convert.transforms import cut, transpose


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
    if min(factor, low, high, context, base) <= 0:
        raise facts.config.bad("the settings of llama3's rope_scaling contradict each other")

    one, tau = np.float32(1), np.float32(2 * math.pi)

    def divisor(number: int) -> float:
        # In float32 and in the order of torch's operations in the converter, so that the bits are the same.
        exponent = float(np.float32(number) / np.float32(length))
        frequency = one / np.float32(base**exponent)
        wavelength = one / frequency * tau
        if wavelength < context / high:
            return 1.0
        if wavelength > context / low or low == high:
            return factor
        smooth = (one / wavelength * np.float32(context) - np.float32(low)) / np.float32(high - low)
        return float(one / ((one - smooth) / np.float32(factor) + smooth))

    with np.errstate(all="ignore"):
        found = tuple(divisor(number) for number in range(0, length, 2))
    if not all(0 < each < math.inf for each in found):
        raise facts.config.bad("the settings of llama3's rope_scaling contradict each other")
    return found


ROPE_FACTORS = made("rope_freqs.weight", rope_factors)
# llama.cpp writes these for all that it calls llama.
VOCABULARY_AND_ROTATION = (u32("vocab_size", "vocab"), u32("rope.dimension_count", "head"))
HEADS = (u32("attention.key_length", "head"), u32("attention.value_length", "head"))

LLAMA = Family(
    "llama",
    classes=(
        "LlamaForCausalLM",
        "IQuestCoderForCausalLM",
        "LlavaForConditionalGeneration",
        "VoxtralForConditionalGeneration",
    ),
    # configuration_llama.py of transformers 4.57
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
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


def _has_experts(facts: Facts, layer: int) -> bool:
    """Every n-th layer (Llama4TextConfig of transformers)."""
    return (layer + 1) % facts.number("interleave_moe_layer_step") == 0


def _without_windows(facts: Facts, layer: int) -> bool:
    return facts.config.has("layer_types") and set(facts.config.layer_types) == {"full_attention"}


_SPLIT = "experts hidden 2*expert_ffn"
LLAMA4 = Family(
    "llama4",
    classes=("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
    # configuration_llama4.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
    },
    # intermediate_size is that of the experts.
    sizes={"ffn": "intermediate_size_mlp", "expert_ffn": "intermediate_size"},
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        *NORMS,
        *attention(bias="attention_bias", output_bias="attention_bias"),
        *feed_forward("feed_forward", when=neither(_has_experts)),
        *router("feed_forward.router", when=_has_experts),
        blk(
            "ffn_gate_exps.weight",
            "feed_forward.experts.gate_up_proj",
            _SPLIT,
            transpose,
            cut("0", "expert_ffn"),
            when=_has_experts,
        ),
        blk(
            "ffn_up_exps.weight",
            "feed_forward.experts.gate_up_proj",
            _SPLIT,
            transpose,
            cut("expert_ffn", "expert_ffn"),
            when=_has_experts,
        ),
        blk(
            "ffn_down_exps.weight",
            "feed_forward.experts.down_proj",
            "experts expert_ffn hidden",
            transpose,
            when=_has_experts,
        ),
        *shared_experts("feed_forward.shared_expert", "expert_ffn", when=_has_experts),
        *OUTPUT,
    ),
    keys=(
        *VOCABULARY_AND_ROTATION,
        u32("interleave_moe_layer_step", "interleave_moe_layer_step"),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("attention.sliding_window", lambda facts: 0, when=_without_windows),
    ),
)

# Every fourth layer has no rotation; the engine knows that.
SMOLLM3 = Family(
    "smollm3",
    classes=("SmolLM3ForCausalLM",),
    # configuration_smollm3.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 2000000.0,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    },
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        *NORMS,
        *attention(in_pairs=True, bias="attention_bias", output_bias="attention_bias"),
        *feed_forward(bias="mlp_bias"),
        *OUTPUT,
    ),
    keys=VOCABULARY_AND_ROTATION,
)

FAMILIES = (LLAMA, MIXTRAL, LLAMA4, SMOLLM3)
