"""The metadata of a converted model: keys, types and order of llama.cpp's converter (conversion/base.py)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quant.convert.config import MOST_EXPERTS, Config
from quant.gguf import keyvalue
from quant.gguf.keyvalue import KeyValue
from quant.sources.source import TensorSpec
from runtime.base.errors import BadModelFile

# general.sampling.*: what generation_config.json calls them, and whether they are whole numbers.
_SAMPLING: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("top_k", ("top_k",), True),
    ("top_p", ("top_p",), False),
    ("min_p", ("min_p",), False),
    ("xtc_probability", ("xtc_probability",), False),
    ("xtc_threshold", ("xtc_threshold",), False),
    ("temp", ("temperature",), False),
    ("penalty_last_n", ("penalty_last_n",), True),
    ("penalty_repeat", ("penalty_repeat", "repetition_penalty"), False),
    ("mirostat", ("mirostat",), True),
    ("mirostat_tau", ("mirostat_tau",), False),
    ("mirostat_eta", ("mirostat_eta",), False),
)
# The numbers of llama.cpp's LLAMA_EXPERT_GATING_FUNC_TYPE.
_GATING = {"softmax": 1, "sigmoid": 2}


class Metadata:
    """Collects keys of one architecture, in order; a key that is set again keeps its place."""

    def __init__(self, architecture: str, config: Config) -> None:
        self.architecture = architecture
        self.config = config
        self._entries: dict[str, KeyValue] = {}

    def add(self, *entries: KeyValue) -> None:
        self._entries.update((entry.key, entry) for entry in entries)

    def u32(self, key: str, value: int) -> None:
        self.add(keyvalue.u32(f"{self.architecture}.{key}", value))

    def f32(self, key: str, value: float) -> None:
        self.add(keyvalue.f32(f"{self.architecture}.{key}", value))

    def boolean(self, key: str, value: bool) -> None:
        self.add(keyvalue.boolean(f"{self.architecture}.{key}", value))

    def text(self, key: str, value: str) -> None:
        self.add(keyvalue.text(f"{self.architecture}.{key}", value))

    @property
    def entries(self) -> tuple[KeyValue, ...]:
        return tuple(self._entries.values())


def general(metadata: Metadata, name: str, generation: Mapping[str, Any], tensors: Iterable[TensorSpec]) -> None:
    """What kind of file it is, how the makers advise to sample, its name and its size class."""
    metadata.add(keyvalue.text("general.architecture", metadata.architecture), keyvalue.text("general.type", "model"))
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
            metadata.add(keyvalue.f32(f"general.sampling.{key}", value))
        elif abs(value) < 2**31:
            metadata.add(keyvalue.i32(f"general.sampling.{key}", int(value)))
    metadata.add(keyvalue.text("general.name", title(name)), keyvalue.text("general.size_label", size_label(tensors)))


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
        if tensor.is_expert_stack:
            counts.append(tensor.shape[-1])
            single += tensor.parameters // tensor.shape[-1]
        else:
            shared += tensor.parameters
    rounded = _rounded(shared + single)
    return f"{sum(counts) // len(counts)}x{rounded}" if counts else rounded


def _rounded(count: int) -> str:
    """Two digits at least: 7B would be 7.6B. Thresholds are those of gguf's size_label."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count > size or unit == "K":
            scaled = count / size
            break
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{unit}"


def sizes(metadata: Metadata) -> None:
    """The facts that all architectures have."""
    config = metadata.config
    metadata.u32("block_count", config.layers + config.mtp_layers)
    metadata.u32("context_length", config.integer("max_position_embeddings"))
    metadata.u32("embedding_length", config.hidden)
    metadata.u32("feed_forward_length", config.integer("intermediate_size"))
    metadata.u32("attention.head_count", config.heads)
    # With compressed attention the engine sees a single head.
    metadata.u32("attention.head_count_kv", 1 if metadata.architecture == "deepseek2" else config.kv_heads)
    _rope(metadata)
    metadata.f32("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps"))
    _experts(metadata)


def _rope(metadata: Metadata) -> None:
    rope = metadata.config.rope
    kind = rope.text("rope_type", "default")
    if kind in ("linear", "yarn") and rope.has("factor"):
        metadata.text("rope.scaling.type", kind)
        metadata.f32("rope.scaling.factor", rope.number("factor"))
    elif kind not in ("default", "llama3", "dynamic"):
        raise metadata.config.bad(f"the rope_type {kind!r} is not known for {metadata.architecture}")
    if kind == "yarn" and rope.has("factor"):
        original = rope.integer("original_max_position_embeddings")
        metadata.u32("rope.scaling.original_context_length", original)
        for key, names in (
            ("yarn_ext_factor", ("extrapolation_factor",)),
            ("yarn_attn_factor", ("attention_factor", "attn_factor")),
            ("yarn_beta_fast", ("beta_fast",)),
            ("yarn_beta_slow", ("beta_slow",)),
        ):
            for name in names:
                if rope.has(name):
                    metadata.f32(f"rope.scaling.{key}", rope.number(name))
                    break
    metadata.f32("rope.freq_base", rope.number("rope_theta"))


def _experts(metadata: Metadata) -> None:
    config = metadata.config
    for key in ("num_local_experts", "num_experts", "n_routed_experts"):
        if config.has(key):
            count, used = config.integer(key, most=MOST_EXPERTS), config.integer("num_experts_per_tok")
            if used > count:
                raise config.bad(f"{used} experts are used per token, but there are {count}")
            metadata.u32("expert_count", count)
            metadata.u32("expert_used_count", used)
            break
    if config.has("n_group"):
        metadata.u32("expert_group_count", config.integer("n_group"))
    if config.has("topk_group"):
        metadata.u32("expert_group_used_count", config.integer("topk_group"))
    if config.has("scoring_func"):
        gating = config.text("scoring_func")
        if gating not in _GATING:
            raise config.bad(f"the scoring_func {gating!r} is not known")
        metadata.u32("expert_gating_func", _GATING[gating])
