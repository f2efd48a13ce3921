"""Stepfun's Step 3.5 Flash and the language model of Step 3.7 Flash: most layers see a window alone and have more
heads, each head has a gate, and the routed experts of a layer are stored as one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

from quant.convert.blocks import EMBEDDING, attention, feed_forward, head_norms, linear, shared_experts
from quant.convert.config import Config
from quant.convert.facts import Facts
from quant.convert.families.deepseek import PREDICTING
from quant.convert.family import Family, blk, f32, flag, made, neither, row, u32
from quant.convert.metadata import by_layer
from quant.convert.transforms import plus
from runtime.gguf.engine_lists import MOST_LAYERS

# of a head, in layers that see everything: the engine halves the length (load_arch_hparams in step35.cpp)
_ROTATED = 0.5
_MOST_HEADS = 1 << 10
_ONE = plus(1)  # norms are stored as their difference from one


def _has_window(facts: Facts, layer: int) -> bool:
    """The list may lack layers for multi-token prediction, which see everything then."""
    kinds = facts.config.layer_types
    return layer < len(kinds) and kinds[layer] == "sliding_attention"


def _heads(key: str) -> Callable[[Facts, int], int]:
    """A number of heads, of which layers with a window may have their own."""

    def number(facts: Facts, layer: int) -> int:
        config, given = facts.config, facts.config.values.get("attention_other_setting")
        if given is not None and not isinstance(given, Mapping):
            raise config.bad("attention_other_setting is not a JSON object")
        other = Config(given or {}, config.path)
        return (other if other.has(key) and _has_window(facts, layer) else config).integer(key, most=_MOST_HEADS)

    return number


def _first_sparse(facts: Facts) -> int:
    """The first layer with experts. Every later one has them, but not those for multi-token prediction."""
    listed = facts.config.values.get("moe_layers_enum")
    parts = listed.split(",", MOST_LAYERS) if isinstance(listed, str) else []
    numbers = sorted(int(each) for each in parts if each.strip().isdecimal() and len(each) < 9)
    if len(numbers) != len(parts) or any(after - before != 1 for before, after in pairwise(numbers)):
        raise facts.config.bad("moe_layers_enum does not name the last layers, with commas between their numbers")
    if not numbers or numbers[-1] != facts.layers - 1:
        raise facts.config.bad(f"moe_layers_enum does not end with {facts.layers - 1}, the last layer")
    return numbers[0]


def _is_sparse(facts: Facts, layer: int) -> bool:
    return _first_sparse(facts) <= layer < facts.layers


def _base(place: int) -> Callable[[Facts], float | None]:
    """The base of the rotary frequencies: of the first layer, which sees everything, or of the second."""

    def number(facts: Facts) -> float | None:
        config = facts.config
        if not isinstance(config.values.get("rope_theta"), list):
            return None if place else config.positive("rope_theta")
        return Config({"rope_theta": config.numbers("rope_theta", 2)[place]}, config.path).positive("rope_theta")

    return number


def _checked_window(facts: Facts) -> list[bool]:
    """Which layers see a window. The engine rotates whole heads there, and half of each head elsewhere."""
    windows = [_has_window(facts, layer) for layer in range(facts.all_layers)]
    factors = facts.config.values.get("partial_rotary_factors")
    if factors is not None and (
        not isinstance(factors, list)
        or any(each != (1 if window else _ROTATED) for each, window in zip(factors, windows, strict=False))
    ):
        raise facts.config.bad("partial_rotary_factors differ from 1 for layers with a window and 0.5 for others")
    return windows


def _frequencies(facts: Facts) -> tuple[float, ...]:
    """Divisors of the rotary frequencies of half a head, as in Llama 3 (Step35Model in conversion/step3.py); else 1."""
    import numpy as np

    rope = facts.config.rope
    if rope.text("rope_type").lower() != "llama3":
        return ()
    factor = rope.number("factor", 8.0)
    low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
    context, base = rope.number("original_max_position_embeddings", 8192), _base(0)(facts)
    if not base or min(factor, low, high, context) <= 0:
        raise facts.config.bad("the settings of llama3's rope_scaling contradict each other")
    length = facts.number("head")
    rotated = int(length * _ROTATED)

    def divisor(number: int) -> float:
        exponent = float(np.float32(number) / np.float32(rotated))
        wavelength = 2 * math.pi / float(np.float32(1) / np.float32(base**exponent))
        if wavelength < context / high:
            return 1.0
        if wavelength > context / low or low == high:
            return factor
        smooth = (context / wavelength - low) / (high - low)
        return 1 / ((1 - smooth) / factor + smooth)

    found = [divisor(number) for number in range(0, rotated, 2)]
    if not all(0 < each < math.inf for each in found):
        raise facts.config.bad("the settings of llama3's rope_scaling contradict each other")
    return (*found, *[1.0] * (length // 2 - len(found)))


def _limits(key: str) -> Callable[[Facts], list[float] | None]:
    """The bounds of the hidden values of each layer's experts; 0 for none."""

    def listed(facts: Facts) -> list[float] | None:
        given = facts.config.values.get(key)
        if given is None:
            return None
        if not isinstance(given, list) or len(given) > MOST_LAYERS:
            raise facts.config.bad(f"{key} is not a list with a number for each layer")
        numbers = [Config({key: each}, facts.config.path).number(key, 0.0) for each in given[: facts.all_layers]]
        return numbers + [0.0] * (facts.all_layers - len(numbers))

    return listed


_STACKED = "experts expert_ffn hidden"
STEP35 = Family(
    "step35",
    classes=("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"),
    # configuration_step3p5.py of stepfun-ai/Step-3.5-Flash
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    sizes={
        "heads": _heads("num_attention_heads"),
        "kv_heads": _heads("num_attention_groups"),
        "experts": "moe_num_experts",
        "used_experts": "moe_top_k",
    },
    without=("rope",),
    rope_types=("llama3",),
    tensors=(
        made("rope_freqs.weight", _frequencies),
        *EMBEDDING,
        blk("attn_norm.weight", "input_layernorm.weight", "hidden", _ONE),
        blk("ffn_norm.weight", "post_attention_layernorm.weight", "hidden", _ONE),
        *attention(),
        *head_norms("self_attn", _ONE),
        *linear("attn_gate", "self_attn.g_proj", "heads", "hidden"),
        *feed_forward(when=neither(_is_sparse)),
        *linear("ffn_gate_inp", "moe.gate", "experts", "hidden", when=_is_sparse),
        blk("exp_probs_b.bias", "moe.router_bias", "experts", when=_is_sparse),
        blk("ffn_gate_exps.weight", "moe.gate_proj.weight", _STACKED, when=_is_sparse),
        blk("ffn_up_exps.weight", "moe.up_proj.weight", _STACKED, when=_is_sparse),
        blk("ffn_down_exps.weight", "moe.down_proj.weight", "experts hidden expert_ffn", when=_is_sparse),
        *shared_experts("share_expert", "share_expert_dim", when=_is_sparse),
        row("output.weight", "lm_head.weight", "vocab hidden"),
        row("output_norm.weight", "model.norm.weight", "hidden", _ONE),
    ),
    keys=(
        f32("rope.freq_base", _base(0)),
        f32("rope.freq_base_swa", _base(1)),
        u32("attention.head_count", by_layer("heads")),
        u32("attention.head_count_kv", by_layer("kv_heads")),
        u32("attention.sliding_window", "sliding_window"),
        flag("attention.sliding_window_pattern", _checked_window),
        u32("attention.value_length", "head"),
        u32("expert_count", "experts"),
        u32("expert_used_count", "used_experts"),
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_feed_forward_length", "share_expert_dim"),
        f32("expert_weights_scale", "moe_router_scaling_factor", optional=True),
        flag("expert_weights_norm", "norm_expert_weight", optional=True),
        u32("leading_dense_block_count", _first_sparse),
        u32("moe_every_n_layers", lambda facts: facts.config.integer("moe_every_n_layer", 1)),
        f32("swiglu_clamp_exp", _limits("swiglu_limits")),
        f32("swiglu_clamp_shexp", _limits("swiglu_limits_shared")),
        PREDICTING,
    ),
    renames=((".transformer.shared_head.", ".shared_head."), ("shared_head.output.", "shared_head.head.")),
    has_mtp=True,
    mtp=(
        *linear("nextn.eh_proj", "eh_proj", "hidden", "2*hidden"),
        blk("nextn.enorm.weight", "enorm.weight", "hidden", _ONE),
        blk("nextn.hnorm.weight", "hnorm.weight", "hidden", _ONE),
        blk("nextn.shared_head_norm.weight", "shared_head.norm.weight", "hidden", _ONE),
        blk("nextn.shared_head_head.weight", "shared_head.head.weight", "vocab hidden"),
    ),
)

FAMILIES = (STEP35,)
