"""EXAONE 4: norms behind attention and network; in the 32B three of four layers attend to a window."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, OUTPUT, attention, feed_forward
from quant.convert.facts import Facts
from quant.convert.families.llama import ROPE_FACTORS
from quant.convert.family import Family, blk, flag, u32


def _pattern(facts: Facts) -> list[bool] | None:
    """For each layer whether it attends to a window; from sliding_window_pattern ("LLLG" or 4) without layer_types."""
    config, layers = facts.config, range(facts.layers)
    if config.has("layer_types"):
        return [config.layer_types[layer] == "sliding_attention" for layer in layers]
    pattern = config.values.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:
        return [pattern[layer % len(pattern)] == "L" for layer in layers]
    if type(pattern) is int and pattern > 0:
        return [(layer + 1) % pattern != 0 for layer in layers]
    return None


EXAONE4 = Family(
    "exaone4",
    classes=("Exaone4ForCausalLM",),
    # configuration_exaone4.py of transformers 4.57
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048},
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        *attention(norm=True),
        blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
        blk("post_ffw_norm.weight", "post_feedforward_layernorm.weight", "hidden"),
        *feed_forward(),
        *OUTPUT,
    ),
    keys=(
        u32("vocab_size", "vocab"),
        u32("attention.sliding_window", "sliding_window", when="sliding_window"),
        flag("attention.sliding_window_pattern", _pattern, when="sliding_window"),
    ),
)

FAMILIES = (EXAONE4,)
