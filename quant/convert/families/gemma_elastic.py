"""Gemma 3n and 4: embeddings of their own for each layer, and last layers that share keys and values."""

from __future__ import annotations

from statistics import NormalDist

from quant.convert.blocks import EMBEDDING, attention, feed_forward, linear, sliding, sliding_pattern
from quant.convert.facts import Facts
from quant.convert.families.gemma import norms_around
from quant.convert.family import Family, Row, When, blk, both, f32, made, neither, row, u32
from quant.convert.transforms import padded, reshape

_PER_LAYER = "hidden_size_per_layer_input"


def _embeddings_of_layers(rows: str, when: When = True) -> tuple[Row, ...]:
    """A second table of embeddings with a part for each layer, and how a layer adds its part (section "Per-Layer
    Embeddings" of the Gemma 3n model card)."""
    return (
        row(
            "per_layer_token_embd.weight",
            "model.embed_tokens_per_layer.weight",
            f"{rows} layers*{_PER_LAYER}",
            padded("vocab"),
            when=when,
        ),
        row(
            "per_layer_model_proj.weight",
            "model.per_layer_model_projection.weight",
            f"layers*{_PER_LAYER} hidden",
            when=when,
        ),
        row("per_layer_proj_norm.weight", "model.per_layer_projection_norm.weight", _PER_LAYER, when=when),
        *linear("inp_gate", "per_layer_input_gate", _PER_LAYER, "hidden", when=when),
        *linear("proj", "per_layer_projection", "hidden", _PER_LAYER, when=when),
        blk("post_norm.weight", "post_per_layer_input_norm.weight", "hidden", when=when),
    )


def _sparsity(facts: Facts) -> list[float]:
    """For each layer how many standard deviations above the mean an activation must be (the inverse of the normal
    distribution, as torch computes it in float32); minus infinity where all count."""
    import numpy as np

    values = facts.config.values.get("activation_sparsity_pattern")
    if values is None:
        values = [0.95 if layer < 10 < facts.layers else 0.0 for layer in range(facts.layers)]
    proper = isinstance(values, list) and len(values) == facts.layers
    if not proper or not all(isinstance(each, int | float) and 0 <= each < 1 for each in values):
        raise facts.config.bad(f"activation_sparsity_pattern is not a list of {facts.layers} numbers from 0 to below 1")
    root = np.float32(2**0.5)

    def deviations(share: float) -> float:
        # erfinv(2 share - 1) * sqrt(2), rounded where torch rounds
        half = float(np.float32(2) * np.float32(share) - np.float32(1)) / 2 + 0.5
        return float(np.float32(NormalDist().inv_cdf(half) / 2**0.5) * root) if half > 0 else -float("inf")

    return [deviations(each) for each in values]


def _stack(name: str) -> Row:
    """The matrices between the four parallel hidden states (AltUp, arXiv 2301.13310)."""
    sources = tuple(f"model.{name}.{number}.weight" for number in range(3))
    to = {"altup_projections": "altup_proj", "altup_unembed_projections": "altup_unembd_proj"}[name]
    return row(f"{to}.weight", sources, "hidden hidden", reshape("3 hidden hidden"))


def _checked_altup(facts: Facts) -> int:
    """The number of parallel hidden states, of which the engine wants four."""
    return facts.config.integer("altup_num_inputs", least=4, most=4)


GEMMA3N = Family(
    "gemma3n",
    classes=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    # configuration_gemma3n.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-6,
        "vocab_size": 262400,
        "vocab_size_per_layer_input": 262144,
        _PER_LAYER: 256,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
        "rope_local_base_freq": 10000.0,
        "sliding_window": 512,
        "final_logit_softcapping": 30.0,
        "altup_active_idx": 0,
        "altup_num_inputs": 4,
        "num_kv_shared_layers": 15,
        "laurel_rank": 64,
    },
    sizes={"altup": lambda facts, layer: _checked_altup(facts)},
    tensors=(
        *EMBEDDING,
        *norms_around(),
        *attention(norm=True),
        *feed_forward(),
        *_embeddings_of_layers("vocab_size_per_layer_input"),
        _stack("altup_projections"),
        _stack("altup_unembed_projections"),
        blk("altup_correct_coef.weight", "altup.correction_coefs.weight", "altup altup"),
        blk("altup_correct_scale.weight", "altup.correct_output_scale", "hidden"),
        blk("altup_predict_coef.weight", "altup.prediction_coefs.weight", "altup*altup altup"),
        blk("altup_router.weight", "altup.modality_router.weight", "altup hidden"),
        blk("altup_router_norm.weight", "altup.router_norm.weight", "hidden"),
        blk("laurel_l.weight", "laurel.linear_left.weight", "laurel_rank hidden"),
        blk("laurel_r.weight", "laurel.linear_right.weight", "hidden laurel_rank"),
        blk("laurel_post_norm.weight", "laurel.post_laurel_norm.weight", "hidden"),
    ),
    keys=(
        u32("feed_forward_length", lambda facts: [facts.number("ffn", layer) for layer in range(facts.layers)]),
        f32("final_logit_softcapping", "final_logit_softcapping", when="final_logit_softcapping"),
        u32("attention.sliding_window", "sliding_window"),
        u32("altup.active_idx", lambda facts: facts.config.integer("altup_active_idx", least=0, most=3)),
        u32("altup.num_inputs", "altup"),
        u32("embedding_length_per_layer_input", _PER_LAYER),
        u32("attention.shared_kv_layers", lambda facts: facts.config.integer("num_kv_shared_layers", least=0)),
        f32("activation_sparsity_scale", _sparsity),
        sliding_pattern(5),
    ),
    left_out=(r"lm_head\.weight",),
)

_is_sliding = sliding(6)


def _of_full_layers(facts: Facts, key: str, inner: str) -> int | None:
    """A size of the layers with full attention: config.json has it under `key`, or under `inner` of the first of these
    layers in per_layer_config; None without either."""
    if facts.config.has(key):
        return facts.config.integer(key, most=1 << 14)
    listed = facts.config.values.get("per_layer_config")
    for number, each in (listed if isinstance(listed, dict) else {}).items():
        layer = int(number) if str(number).isdecimal() and len(str(number)) < 5 else facts.layers
        if layer < facts.layers and not _is_sliding(facts, layer) and isinstance(each, dict) and inner in each:
            value = each[inner]
            if type(value) is int and 0 < value <= 1 << 14:
                return value
    return None


def _head(facts: Facts, layer: int) -> int:
    full = _of_full_layers(facts, "global_head_dim", "head_dim")
    return facts.number("head_dim") if full is None or _is_sliding(facts, layer) else full


def _kv_heads(facts: Facts, layer: int) -> int:
    full = _of_full_layers(facts, "num_global_key_value_heads", "num_key_value_heads")
    return facts.number("num_key_value_heads") if full is None or _is_sliding(facts, layer) else full


def _kv_heads_of_layers(facts: Facts) -> list[int] | None:
    if _of_full_layers(facts, "num_global_key_value_heads", "num_key_value_heads") is None:
        return None
    return [_kv_heads(facts, layer) for layer in range(facts.layers)]


def _shares(facts: Facts, layer: int) -> bool:
    """Whether a layer uses the keys and values of an earlier one."""
    return layer >= facts.layers - facts.config.integer("num_kv_shared_layers", least=0)


def _ffn(facts: Facts, layer: int) -> int:
    wide = facts.config.flag("use_double_wide_mlp") and _shares(facts, layer)
    return facts.number("intermediate_size") * (2 if wide else 1)


def _full_head(facts: Facts) -> int:
    return _of_full_layers(facts, "global_head_dim", "head_dim") or facts.number("head_dim")


def _frequencies(facts: Facts) -> tuple[float, ...]:
    """Divisors of the rotary frequencies in layers with full attention: a part is rotated, the rest hardly at all.

    The rotated elements are at the beginning of both halves of a head, which the engine has no other way to say
    (Gemma4Model.generate_extra_tensors in conversion/gemma.py of llama.cpp)."""
    share = facts.config.rope.number("partial_rotary_factor", 0.25, least=0, below=1.01)
    half = _full_head(facts) // 2
    rotated = min(int(_full_head(facts) * share / 2), half)
    return (1.0,) * rotated + (1e30,) * (half - rotated)


_HAS_KEYS = neither(_shares)
_SAME = both("attention_k_eq_v", neither(_is_sliding))  # values are the keys before their norm
_EXPERT = "enable_moe_block"


def _if_shared(each: Row) -> tuple[Row, ...]:
    """The row for layers with keys of their own; other layers may have it, and the engine does not use it."""
    own = Row(each.to, each.of, each.shape, each.by, both(each.when, _HAS_KEYS))
    return own, Row(each.to, each.of, each.shape, each.by, both(each.when, _shares), optional=True)


GEMMA4 = Family(
    "gemma4",
    classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration"),
    # configuration_gemma4.py of transformers 5
    defaults={
        "rms_norm_eps": 1e-6,
        "vocab_size": 262144,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "sliding_window": 512,
        "num_kv_shared_layers": 0,
        _PER_LAYER: 256,
        "vocab_size_per_layer_input": 262144,
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    sizes={"head": _head, "kv_heads": _kv_heads, "ffn": _ffn},
    rope_types=("proportional",),
    tensors=(
        made("rope_freqs.weight", _frequencies),
        *EMBEDDING,
        row("output.weight", "lm_head.weight", "vocab hidden", optional=True),
        *norms_around(),
        *linear("attn_q", "self_attn.q_proj", "heads*head", "hidden"),
        *linear("attn_output", "self_attn.o_proj", "hidden", "heads*head"),
        blk("attn_q_norm.weight", "self_attn.q_norm.weight", "head"),
        *_if_shared(blk("attn_k.weight", "self_attn.k_proj.weight", "kv_heads*head hidden")),
        *_if_shared(blk("attn_k_norm.weight", "self_attn.k_norm.weight", "head")),
        *_if_shared(blk("attn_v.weight", "self_attn.v_proj.weight", "kv_heads*head hidden", when=neither(_SAME))),
        *feed_forward(),
        blk("layer_output_scale.weight", "layer_scalar", "1"),
        *_embeddings_of_layers("vocab_size_per_layer_input", when=_PER_LAYER),
        blk("ffn_gate_inp.weight", "router.proj.weight", "experts hidden", when=_EXPERT),
        blk("ffn_gate_inp.scale", "router.scale", "hidden", when=_EXPERT),
        blk("ffn_down_exps.scale", "router.per_expert_scale", "experts", when=_EXPERT),
        blk("ffn_gate_up_exps.weight", "experts.gate_up_proj", "experts 2*expert_ffn hidden", when=_EXPERT),
        blk("ffn_down_exps.weight", "experts.down_proj", "experts hidden expert_ffn", when=_EXPERT),
        blk("post_ffw_norm_1.weight", "post_feedforward_layernorm_1.weight", "hidden", when=_EXPERT),
        blk("pre_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight", "hidden", when=_EXPERT),
        blk("post_ffw_norm_2.weight", "post_feedforward_layernorm_2.weight", "hidden", when=_EXPERT),
    ),
    keys=(
        u32("attention.head_count_kv", _kv_heads_of_layers),
        f32("final_logit_softcapping", "final_logit_softcapping", when="final_logit_softcapping"),
        u32("attention.sliding_window", "sliding_window"),
        u32("attention.shared_kv_layers", lambda facts: facts.config.integer("num_kv_shared_layers", least=0)),
        u32("embedding_length_per_layer_input", lambda facts: facts.config.integer(_PER_LAYER, 0, least=0)),
        sliding_pattern(6),
        u32("attention.key_length", _full_head),
        u32("attention.value_length", _full_head),
        u32("attention.key_length_swa", "head_dim"),
        u32("attention.value_length_swa", "head_dim"),
        u32("expert_feed_forward_length", "expert_ffn", when="moe_intermediate_size"),
        u32("rope.dimension_count", _full_head),
        u32("rope.dimension_count_swa", "head_dim"),
    ),
)

FAMILIES = (GEMMA3N, GEMMA4)
