"""The metadata of a converted model: keys, types and order of llama.cpp's converter (conversion/base.py)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gguf import ExpertGatingFuncType, Keys
from gguf import size_label as gguf_size_label

from quant.convert.config import Config
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
_GATING = {kind.name.lower(): kind for kind in ExpertGatingFuncType}


class Metadata:
    """Collects metadata in order. Keys are those of gguf.Keys, in which "{arch}" stands for the architecture.

    A key that is set again keeps its place."""

    def __init__(self, architecture: str, config: Config) -> None:
        self.architecture = architecture
        self.config = config
        self._entries: dict[str, KeyValue] = {}

    def add(self, *entries: KeyValue) -> None:
        self._entries.update((entry.key, entry) for entry in entries)

    def u32(self, key: str, value: int) -> None:
        self.add(writer.u32(key.format(arch=self.architecture), value))

    def f32(self, key: str, value: float) -> None:
        self.add(writer.f32(key.format(arch=self.architecture), value))

    def boolean(self, key: str, value: bool) -> None:
        self.add(writer.boolean(key.format(arch=self.architecture), value))

    def text(self, key: str, value: str) -> None:
        self.add(writer.text(key.format(arch=self.architecture), value))

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
        if tensor.is_expert_stack:
            counts.append(tensor.shape[-1])
            single += tensor.parameters // tensor.shape[-1]
        else:
            shared += tensor.parameters
    experts = sum(counts) // len(counts) if counts else 0
    return str(gguf_size_label(shared, shared, single, experts))


def sizes(metadata: Metadata) -> None:
    """The facts that all architectures have."""
    config = metadata.config
    metadata.u32(Keys.LLM.BLOCK_COUNT, config.layers + config.mtp_layers)
    metadata.u32(Keys.LLM.CONTEXT_LENGTH, config.integer("max_position_embeddings"))
    metadata.u32(Keys.LLM.EMBEDDING_LENGTH, config.hidden)
    metadata.u32(Keys.LLM.FEED_FORWARD_LENGTH, config.integer("intermediate_size"))
    metadata.u32(Keys.Attention.HEAD_COUNT, config.heads)
    # With compressed attention the engine sees a single head.
    metadata.u32(Keys.Attention.HEAD_COUNT_KV, 1 if metadata.architecture == "deepseek2" else config.kv_heads)
    _rope(metadata)
    metadata.f32(Keys.Attention.LAYERNORM_RMS_EPS, config.number("rms_norm_eps", least=0, below=1))
    _experts(metadata)


def _rope(metadata: Metadata) -> None:
    rope = metadata.config.rope
    kind = rope.text("rope_type", "default")
    if kind in ("linear", "yarn"):
        metadata.text(Keys.Rope.SCALING_TYPE, kind)
        metadata.f32(Keys.Rope.SCALING_FACTOR, rope.positive("factor"))
    elif kind not in ("default", "llama3", "dynamic"):
        raise _unknown(metadata, "rope_type", kind)
    if kind == "yarn":
        original = rope.integer("original_max_position_embeddings")
        metadata.u32(Keys.Rope.SCALING_ORIG_CTX_LEN, original)
        for key, names in (
            (Keys.Rope.SCALING_YARN_EXT_FACTOR, ("extrapolation_factor",)),
            (Keys.Rope.SCALING_YARN_ATTN_FACTOR, ("attention_factor", "attn_factor")),
            (Keys.Rope.SCALING_YARN_BETA_FAST, ("beta_fast",)),
            (Keys.Rope.SCALING_YARN_BETA_SLOW, ("beta_slow",)),
        ):
            for name in names:
                if rope.has(name):
                    metadata.f32(key, rope.number(name))
                    break
    metadata.f32(Keys.Rope.FREQ_BASE, rope.positive("rope_theta"))


def _experts(metadata: Metadata) -> None:
    config = metadata.config
    keys = [key for key in ("num_local_experts", "num_experts", "n_routed_experts") if config.has(key)]
    counts = [config.integer(key, most=MOST_EXPERTS) for key in keys]
    if len(set(counts)) > 1:
        raise config.bad(f"{keys[0]} is {counts[0]}, but {keys[-1]} is {counts[-1]}")
    if counts:
        used = config.integer("num_experts_per_tok")
        if used > counts[0]:
            raise config.bad(f"{used} experts are used per token, but there are {counts[0]}")
        metadata.u32(Keys.LLM.EXPERT_COUNT, counts[0])
        metadata.u32(Keys.LLM.EXPERT_USED_COUNT, used)
        _groups(metadata, keys[0], counts[0])
    if config.has("scoring_func"):
        gating = config.text("scoring_func")
        if gating not in _GATING:
            raise _unknown(metadata, "scoring_func", gating)
        metadata.u32(Keys.LLM.EXPERT_GATING_FUNC, _GATING[gating])


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
    if count % groups or count == groups > 1:
        raise config.bad(f"n_group {groups} does not divide the {count} experts of {key}")
    if groups > 1 and used >= groups:
        raise config.bad(f"topk_group is {used} of n_group {groups}")
    if config.has("n_group"):
        metadata.u32(Keys.LLM.EXPERT_GROUP_COUNT, groups)
    if config.has("topk_group"):
        metadata.u32(Keys.LLM.EXPERT_GROUP_USED_COUNT, used)
