"""Llama-Nemotron (Deci): layers differ in heads and inner width, and some lack attention or the whole of a block."""

from __future__ import annotations

from typing import Any

from quant.convert.blocks import EMBEDDING, OUTPUT, attention, feed_forward
from quant.convert.facts import Facts
from quant.convert.families.llama import HEADS, ROPE_FACTORS, VOCABULARY_AND_ROTATION
from quant.convert.family import Family, blk, u32


def _block(facts: Facts, layer: int, part: str) -> dict[str, Any]:
    """What block_configs says about "attention" or "ffn" of a layer."""
    blocks = facts.config.values.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) != facts.layers:
        raise facts.config.bad(f"block_configs is not a list with an entry for each of {facts.layers} layers")
    block = blocks[layer]
    found = block.get(part) if isinstance(block, dict) else None
    if not isinstance(found, dict):
        raise facts.config.bad(f"block_configs has no {part} for layer {layer}")
    return found


def _in_group(facts: Facts, layer: int) -> int:
    """How many queries share a key; 0 for a layer without keys."""
    number = _block(facts, layer, "attention").get("n_heads_in_group")
    if number is None:
        return 0
    if type(number) is not int or not 1 <= number <= facts.number("all_heads"):
        raise facts.config.bad(f"n_heads_in_group of layer {layer} is not a number of heads")
    return number


def _heads(facts: Facts, layer: int) -> int:
    """A layer whose attention is a single matrix has heads, too, but no keys."""
    linear = _block(facts, layer, "attention").get("replace_with_linear") is True
    return facts.number("all_heads") if _in_group(facts, layer) or linear else 0


def _kv_heads(facts: Facts, layer: int) -> int:
    group = _in_group(facts, layer)
    return facts.number("all_heads") // group if group else 0


def _ffn(facts: Facts, layer: int) -> int:
    """Two thirds of a multiple of the hidden size, rounded up to 256 (_ffn_mult_to_intermediate_size)."""
    factor = _block(facts, layer, "ffn").get("ffn_mult")
    if factor is None:
        return 0
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1000:
        raise facts.config.bad(f"ffn_mult of layer {layer} is not a factor")
    return -(-int(2 * factor * facts.number("hidden") / 3) // 256) * 256


def _each(name: str) -> Any:
    """The list with the value of each layer, also where all are the same."""
    return lambda facts: [facts.number(name, layer) for layer in range(facts.layers)]


def _has_keys(facts: Facts, layer: int) -> bool:
    return facts.number("kv_heads", layer) > 0


def _has_attention(facts: Facts, layer: int) -> bool:
    return facts.number("heads", layer) > 0


def _is_linear(facts: Facts, layer: int) -> bool:
    return _has_attention(facts, layer) and not _has_keys(facts, layer)


def _has_ffn(facts: Facts, layer: int) -> bool:
    return facts.number("ffn", layer) > 0


DECI = Family(
    "deci",
    classes=("DeciLMForCausalLM",),
    when="block_configs",
    # configuration_decilm.py of nvidia/Llama-3_3-Nemotron-Super-49B-v1
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    sizes={
        "all_heads": "num_attention_heads",
        "heads": _heads,
        "kv_heads": _kv_heads,
        "ffn": _ffn,
        "head": lambda facts, layer: facts.number("hidden") // facts.number("all_heads"),
    },
    without=("attention.head_count", "attention.head_count_kv", "feed_forward_length"),
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        blk("attn_norm.weight", "input_layernorm.weight", "hidden", when=_has_attention),
        *attention(in_pairs=True, bias="attention_bias", output_bias="attention_bias", when=_has_keys),
        blk("attn_output.weight", "self_attn.linear_attn.weight", "hidden hidden", when=_is_linear),
        blk("ffn_norm.weight", "post_attention_layernorm.weight", "hidden", when=_has_ffn),
        *feed_forward(bias="mlp_bias", when=_has_ffn),
        *OUTPUT,
    ),
    keys=(
        u32("attention.head_count_kv", _each("kv_heads")),
        u32("attention.head_count", _each("heads")),
        u32("feed_forward_length", _each("ffn")),
        *HEADS,
        *VOCABULARY_AND_ROTATION,
    ),
)

FAMILIES = (DECI,)
