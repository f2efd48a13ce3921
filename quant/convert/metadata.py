"""The metadata of a converted model: keys, types and order of llama.cpp's converter (conversion/base.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gguf import ExpertGatingFuncType, Keys
from gguf import size_label as gguf_size_label

from quant.convert.config import Config
from quant.convert.facts import Facts
from quant.convert.family import Family, Key, Kind, holds
from quant.gguf import writer
from quant.gguf.writer import KeyValue
from quant.sources.source import TensorSpec
from runtime.base.errors import BadModelFile, Incompatible
from runtime.base.quoted import spelled
from runtime.gguf.engine_lists import MOST_EXPERTS

# Recommended sampling: GGUF's key, generation_config.json's keys, and whether the value is a whole number.
_SAMPLING: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    (Keys.General.SAMPLING_TOP_K, ("top_k",), True),
    (Keys.General.SAMPLING_TOP_P, ("top_p",), False),
    (Keys.General.SAMPLING_MIN_P, ("min_p",), False),
    (Keys.General.SAMPLING_XTC_PROBABILITY, ("xtc_probability",), False),
    (Keys.General.SAMPLING_XTC_THRESHOLD, ("xtc_threshold",), False),
    (Keys.General.SAMPLING_TEMP, ("temperature",), False),
    (Keys.General.SAMPLING_PENALTY_LAST_N, ("penalty_last_n",), True),
    (Keys.General.SAMPLING_PENALTY_REPEAT, ("penalty_repeat", "repetition_penalty"), False),
    (Keys.General.SAMPLING_MIROSTAT, ("mirostat",), True),
    (Keys.General.SAMPLING_MIROSTAT_TAU, ("mirostat_tau",), False),
    (Keys.General.SAMPLING_MIROSTAT_ETA, ("mirostat_eta",), False),
)
_GATING = {kind.name.lower(): int(kind) for kind in ExpertGatingFuncType}
_GATING |= {"noaux_tc": 2}  # dots.llm1 has the name of its method, which goes with the sigmoid
_GATING |= {"sqrtsoftplus": 4}  # LLAMA_EXPERT_GATING_FUNC_TYPE_SQRT_SOFTPLUS of src/llama-hparams.h
_GATING_KEYS = (
    "score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
    "expert_selection_fn",
)  # fmt: skip
_CONTEXT = (
    "max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length",
)  # fmt: skip
_ENTRY: Mapping[Kind, Callable[[str, Any], KeyValue]] = {
    "u32": writer.u32, "i32": writer.i32, "f32": writer.f32, "bool": writer.boolean, "text": writer.text,
}  # fmt: skip
# gguf's writer stores lists of integers as 32 bits with sign.
_ARRAY: Mapping[Kind, Callable[[str, Any], KeyValue]] = {
    "u32": writer.i32s, "i32": writer.i32s, "f32": writer.f32s, "bool": writer.booleans, "text": writer.texts,
}  # fmt: skip


class Metadata:
    """Collects metadata in order. Names of keys lack the architecture; a key that is set again keeps its place."""

    def __init__(self, architecture: str, facts: Facts) -> None:
        self.architecture = architecture
        self.facts = facts
        self.config = facts.config
        self._entries: dict[str, KeyValue] = {}

    def add(self, *entries: KeyValue) -> None:
        self._entries.update((entry.key, entry) for entry in entries)

    def put(self, name: str, kind: Kind, value: Any) -> None:
        """Set the key `name`, or a whole key with a leading dot; a list is stored as an array."""
        key = name[1:] if name.startswith(".") else f"{self.architecture}.{name}"
        self.add(_ENTRY[kind](key, value) if not isinstance(value, list) else _ARRAY[kind](key, value))

    def has(self, name: str) -> bool:
        """Whether the key `name`, without the architecture, is set."""
        return f"{self.architecture}.{name}" in self._entries

    def put_keys(self, keys: Iterable[Key]) -> None:
        """Set the entries of a family's table."""
        for each in keys:
            if holds(each.when, self.facts):
                value = _value(each, self.facts)
                if value is not None:
                    self.put(each.name, each.kind, value)

    @property
    def entries(self) -> tuple[KeyValue, ...]:
        return tuple(self._entries.values())


def general(metadata: Metadata, name: str, generation: Mapping[str, Any], tensors: Iterable[TensorSpec]) -> None:
    """Add the kind of file, the recommended sampling, the name and the size class."""
    metadata.add(writer.text(Keys.General.ARCHITECTURE, metadata.architecture), writer.text(Keys.General.TYPE, "model"))
    settings = Config(generation, Path("generation_config.json"))
    for key, names, whole in _SAMPLING:
        found = next((each for each in names if settings.has(each)), None)
        if found is None:
            continue
        try:
            value = settings.number(found)
        except BadModelFile:
            continue  # advice that makes no sense is no reason to refuse a model
        if not whole:
            metadata.add(writer.f32(key, value))
        elif abs(value) < 2**31:
            metadata.add(writer.i32(key, int(value)))
    metadata.add(writer.text(Keys.General.NAME, title(name)), writer.text(Keys.General.SIZE_LABEL, size_label(tensors)))


def title(name: str) -> str:
    """ "nano-draft" -> "Nano Draft"; versions and words with capitals stay as they are."""
    words = name.replace("-", " ").split()
    plain = re.compile(r"v\d+(?:\.\d+)*|\d.*")
    return " ".join(word.title() if word.islower() and not plain.fullmatch(word) else word for word in words)


def size_label(tensors: Iterable[TensorSpec]) -> str:
    """ "1.3M", or "16x3.4M" with experts: how many, and parameters of the rest with a single one of each stack."""
    shared = single = 0
    counts = []
    for tensor in tensors:
        if tensor.is_expert_stack and len(tensor.shape) > 2:  # no biases
            counts.append(tensor.shape[-1])
            single += tensor.parameters // tensor.shape[-1]
        else:
            shared += tensor.parameters
    experts = sum(counts) // len(counts) if counts else 0
    return str(gguf_size_label(shared, shared, single, experts))


def standard(metadata: Metadata, family: Family) -> None:
    """The keys that most architectures have (TextModel.set_gguf_parameters in conversion/base.py of llama.cpp)."""
    config, facts, without = metadata.config, metadata.facts, family.without

    def size(name: str, of: str) -> None:
        if name not in without and facts.has(of):
            metadata.put(name, "u32", per_layer(facts, of))

    metadata.put("block_count", "u32", facts.all_layers)
    if "context_length" not in without:
        context = next((key for key in _CONTEXT if config.has(key)), _CONTEXT[0])
        metadata.put("context_length", "u32", config.integer(context))
    size("embedding_length", "hidden")
    size("feed_forward_length", "ffn")
    size("attention.head_count", "heads")
    size("attention.head_count_kv", "kv_heads")
    _check_heads(facts)
    if "rope" not in without:
        _rope(metadata, family)
    for name, keys in (
        ("attention.layer_norm_rms_epsilon", ("rms_norm_eps", "norm_eps")),
        ("attention.layer_norm_epsilon", ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")),
    ):
        key = next((key for key in keys if config.has(key)), None)
        if key and name not in without:
            metadata.put(name, "f32", config.number(key, least=0, below=1))
    if "experts" not in without:
        _experts(metadata)
    if config.has("head_dim") and "attention.key_length" not in without:
        metadata.put("attention.key_length", "u32", facts.number("head"))
        metadata.put("attention.value_length", "u32", facts.number("head"))


def _check_heads(facts: Facts) -> None:
    """Heads of keys and values serve equal groups of heads of queries."""
    for layer in range(facts.layers if facts.has("heads") else 0):
        heads, groups = facts.number("heads", layer), facts.number("kv_heads", layer)
        if groups and heads % groups:
            raise facts.config.bad(
                f"{facts.key('heads')} {heads} is not a multiple of {groups} heads of keys and values"
            )


def per_layer(facts: Facts, name: str) -> int | list[int]:
    """A size, or the list of it when it is not the same in all layers."""
    values = [facts.number(name, layer) for layer in range(facts.all_layers)]
    return values[0] if len(set(values)) == 1 else values


def by_layer(name: str) -> Callable[[Facts], list[int]]:
    """For tables: the list of a size in each layer, even where it is the same in all."""
    return lambda facts: [facts.number(name, layer) for layer in range(facts.all_layers)]


def _value(each: Key, facts: Facts) -> Any:
    """The value of an entry; None leaves it out."""
    if not isinstance(each.value, str):
        return each.value(facts)
    config = facts.config
    if each.optional and not (facts.has(each.value) if each.kind in ("u32", "i32") else config.has(each.value)):
        return None
    if each.kind in ("u32", "i32"):
        return facts.number(each.value)
    if each.kind == "f32":
        return config.number(each.value)
    return config.flag(each.value) if each.kind == "bool" else config.text(each.value)


def _rope(metadata: Metadata, family: Family) -> None:
    rope = metadata.config.rope
    kind = rope.text("rope_type", "default")
    if kind in ("linear", "yarn"):
        metadata.put("rope.scaling.type", "text", kind)
        metadata.put("rope.scaling.factor", "f32", rope.positive("factor"))
    elif kind in ("longrope", "su") and "longrope" in family.rope_types:
        metadata.put("rope.scaling.type", "text", "longrope")
    elif kind not in ("default", "llama3", "dynamic", "mrope") and kind not in family.rope_types:
        raise _unknown(metadata, "rope_type", kind)
    if kind == "yarn":
        original = rope.integer("original_max_position_embeddings")
        metadata.put("rope.scaling.original_context_length", "u32", original)
        for name, keys in (
            ("yarn_ext_factor", ("extrapolation_factor",)),
            ("yarn_attn_factor", ("attention_factor", "attn_factor")),
            ("yarn_beta_fast", ("beta_fast",)),
            ("yarn_beta_slow", ("beta_slow",)),
        ):
            key = next((key for key in keys if rope.has(key)), None)
            if key:
                metadata.put(f"rope.scaling.{name}", "f32", rope.number(key))
    sections = rope.integers("mrope_section")
    if sections:
        metadata.put("rope.dimension_sections", "i32", [*sections, 0, 0, 0, 0][:4])
    if rope.has("rope_theta"):
        metadata.put("rope.freq_base", "f32", rope.positive("rope_theta"))
    if metadata.config.sliding_rope.has("rope_theta"):
        metadata.put("rope.freq_base_swa", "f32", metadata.config.sliding_rope.positive("rope_theta"))


def _experts(metadata: Metadata) -> None:
    config = metadata.config
    keys = [key for key in ("num_local_experts", "num_experts", "n_routed_experts") if config.has(key)]
    counts = [config.integer(key, least=0, most=MOST_EXPERTS) for key in keys]
    if len(set(counts)) > 1:
        raise config.bad(f"{keys[0]} is {counts[0]}, but {keys[-1]} is {counts[-1]}")
    if counts:
        used = _used_experts(metadata)
        if used > counts[0] or (counts[0] and not used):
            raise config.bad(f"{used} experts are used per token, but there are {counts[0]}")
        metadata.put("expert_count", "u32", counts[0])
        metadata.put("expert_used_count", "u32", used)
        _groups(metadata, keys[0], counts[0])
    key = next((key for key in _GATING_KEYS if config.has(key)), None)
    if key:
        gating = config.text(key)
        if gating not in _GATING:
            raise _unknown(metadata, key, gating)
        metadata.put("expert_gating_func", "u32", _GATING[gating])


def _used_experts(metadata: Metadata) -> int:
    """Experts that a token uses, which config.json may list for each layer: the engine knows one number."""
    config, key = metadata.config, metadata.facts.key("used_experts")
    if not isinstance(config.values.get(key), list):
        return config.integer(key, least=0)
    found = per_layer(metadata.facts, "used_experts")
    if isinstance(found, list):
        raise config.bad(f"{key} differs by layer")
    return found


def _unknown(metadata: Metadata, key: str, value: str) -> Incompatible:
    """The error for a setting that other models have, and that this architecture does not have in llama.cpp."""
    return Incompatible(
        f"{metadata.config.path}: the {key} {spelled(value)} is not known for {metadata.architecture}",
        hint="take a version of the model as GGUF",
    )


def _groups(metadata: Metadata, key: str, count: int) -> None:
    """Groups of experts, which must be equal in size; the engine cannot use all of several."""
    config = metadata.config
    groups, used = config.integer("n_group", 1), config.integer("topk_group", 1)
    if count and (count % groups or count == groups > 1):
        raise config.bad(f"n_group {groups} does not divide the {count} experts of {key}")
    if groups > 1 and used >= groups:
        raise config.bad(f"topk_group is {used} of n_group {groups}")
    if config.has("n_group"):
        metadata.put("expert_group_count", "u32", groups)
    if config.has("topk_group"):
        metadata.put("expert_group_used_count", "u32", used)
