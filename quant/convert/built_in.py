"""Settings of config.json that the engine's graphs have built in: a model with others would compute something else.

A GGUF has no keys for them, so llama.cpp's converter ignores them. Sources: the graph of each architecture in
src/models/*.cpp of llama.cpp, and transformers' modeling files for the meaning of the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quant.convert.family import Family
from quant.convert.metadata import Metadata
from runtime.base.errors import Incompatible
from runtime.base.quoted import spelled
from runtime.gguf.engine_lists import TIME_MIX, TIME_MIX_STEP

_ACTIVATIONS = ("hidden_act", "hidden_activation", "mlp_hidden_act", "activation_function")
_SILU = ("silu", "swish", "swiglu")
# ggml's GELU is the approximation by tanh, from a table of 16 bits: the exact one is within its error.
_GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python")
# Architectures with another activation than SiLU (LLM_FFN_* in src/models/*.cpp).
_OTHERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "falcon", "gpt2", "gptneox", "mpt"), _GELU),
    **dict.fromkeys(("bloom", "codeshell", "phi2", "starcoder", "starcoder2", "grok", "spark2_5"), _GELU),
    **dict.fromkeys(("arcee", "nemotron", "nemotron_h", "nemotron_h_moe", "jais2", "plm"), ("relu2",)),
    "smallthinker": ("relu",),
    "apertus": ("xielu",),
}
_EVERY_FOURTH = {"no_rope_layer_interval": (4,)}
_NORMED, _NOT_NORMED = {"norm_topk_prob": (True,)}, {"norm_topk_prob": (False,)}
# The values of keys that may be absent, by architecture.
_VALUES: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "afmoe": {"mup_enabled": (True,)},
    **{name: {"rope_interleave": (True,)} for name in ("deepseek2", "deepseek32", "glm-dsa", "mistral4")},
    **{name: {"use_bidirectional_attention": (False,)} for name in ("gemma", "gemma2", "gemma3")},
    "granitehybrid": {"position_embedding_type": ("nope",)},
    "kimi-linear": {"moe_renormalize": (True,)},
    "llama4": {
        "attention_chunk_size": (8192,),
        "floor_scale": (8192,),
        "attn_scale": (0.1,),
        "attn_temperature_tuning": (True, 4),
        **_EVERY_FOURTH,
    },
    "smollm3": _EVERY_FOURTH,
    **dict.fromkeys(("qwen3moe", "qwen3next", "qwen35moe", "lfm2moe", "hunyuan-moe", "minimax-m2"), _NORMED),
    **dict.fromkeys(("qwen2moe", "olmoe"), _NOT_NORMED),
}
# Keys that the file must have where config.json has more than the neutral value.
_STORED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("routed_scaling_factor", (0, 1), "expert_weights_scale"),
    ("use_sliding_window", (False,), "attention.sliding_window"),
    ("attn_logit_softcapping", (0,), "attn_logit_softcapping"),
    ("final_logit_softcapping", (0,), "final_logit_softcapping"),
    ("clip_qkv", (), "attention.clamp_kqv"),
)


def check_built_in(metadata: Metadata, family: Family) -> None:
    """Raise Incompatible for a setting that the engine would not follow; `metadata` has the keys of the file."""
    config, architecture = metadata.config, family.architecture
    for key in _ACTIVATIONS:
        _check(metadata, key, _OTHERS.get(architecture, _SILU))
    for key, known in _VALUES.get(architecture, {}).items():
        _check(metadata, key, known)
    for key, neutral, stored in _STORED:
        if not metadata.has(stored):
            _check(metadata, key, neutral)
    kinds = config.values.get("layer_types")
    windows = isinstance(kinds, list) and "sliding_attention" in kinds
    if windows and not metadata.has("attention.sliding_window"):
        raise _refused(metadata, "layer_types", "sliding_attention")
    rotated = config.rope.values.get("partial_rotary_factor")
    if rotated is not None and not metadata.has("rope.dimension_count"):
        _check_value(metadata, "partial_rotary_factor", rotated, (1,))
    factors = any(each.to == "rope_freqs.weight" for each in family.tensors)
    if config.rope.values.get("rope_type") == "llama3" and not factors:
        raise _refused(metadata, "rope_type", "llama3")
    _check_rotation(metadata)
    _check_attention_scale(metadata)
    _check_time_steps(metadata)
    if architecture in TIME_MIX and metadata.facts.number("head") % TIME_MIX_STEP:
        raise _refused(metadata, "head_dim", metadata.facts.number("head"))


def _check_rotation(metadata: Metadata) -> None:
    """Which layers have no rotation: every fourth one, and no hybrid's attention unless the file says so."""
    config, facts = metadata.config, metadata.facts
    listed = config.values.get("no_rope_layers")
    everywhere = metadata.architecture == "llama4" and metadata.has("attention.sliding_window")
    fourth = metadata.architecture in ("llama4", "smollm3") and not everywhere
    if fourth and listed and listed != [int((layer + 1) % 4 != 0) for layer in range(facts.layers)]:
        raise _refused(metadata, "no_rope_layers", listed)
    kind = config.values.get("position_embedding_type")
    rotated = metadata.architecture != "granitehybrid"
    if "GraniteMoeHybridForCausalLM" in config.architectures and rotated and kind != "rope":
        raise _refused(metadata, "position_embedding_type", kind)


def _check_attention_scale(metadata: Metadata) -> None:
    """Gemma's queries are divided by a root that the engine knows by the number of layers (gemma2.cpp, gemma3.cpp)."""
    facts, largest = metadata.facts, {"gemma2": 46, "gemma3": 62}.get(metadata.architecture)
    value = metadata.config.values.get("query_pre_attn_scalar", 256)  # transformers' default
    if largest is not None:
        known = facts.number("even_head" if facts.layers == largest else "head")
        _check_value(metadata, "query_pre_attn_scalar", value, (known,))


def _check_time_steps(metadata: Metadata) -> None:
    """No graph limits the time steps of a state-space model."""
    limits = metadata.config.values.get("time_step_limit")
    if limits is not None and limits not in ([0, float("inf")], [0, "inf"], [0, "Infinity"]):
        raise _refused(metadata, "time_step_limit", limits)


def _check(metadata: Metadata, key: str, known: tuple[Any, ...]) -> None:
    value = metadata.config.values.get(key)
    if value is not None:
        _check_value(metadata, key, value, known)


def _check_value(metadata: Metadata, key: str, value: Any, known: tuple[Any, ...]) -> None:
    if isinstance(value, (list, dict)) or value not in known:
        raise _refused(metadata, key, value)


def _refused(metadata: Metadata, key: str, value: Any) -> Incompatible:
    name = metadata.architecture
    return Incompatible(
        f"{metadata.config.path}: {key} is {spelled(value)}, which the engine does not compute for {name}",
        hint="take a model that is published as GGUF",
    )
