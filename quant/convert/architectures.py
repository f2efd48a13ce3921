"""The model architectures that can be converted, by the name that config.json gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant.convert import deepseek, llama, mixtral, qwen
from quant.convert.config import Config
from quant.convert.layout import Layout
from quant.convert.metadata import Metadata
from runtime.base.errors import Incompatible


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture is converted.

    `layout` lists the tensors, `describe` adds the architecture's metadata, `defaults` are config.json's values where
    it has none. `sentencepiece`: models may have a tokenizer.model. `has_mtp`: models may have layers for multi-token
    prediction (MTP), which can be kept.
    """

    layout: Callable[[Config], Layout]
    describe: Callable[[Metadata], None]
    defaults: Mapping[str, Any]
    sentencepiece: bool = False
    has_mtp: bool = False


ARCHITECTURES = {
    "DeepseekV2ForCausalLM": Architecture(deepseek.layout, deepseek.describe, deepseek.DEFAULTS_2),
    "DeepseekV3ForCausalLM": Architecture(deepseek.layout, deepseek.describe, deepseek.DEFAULTS_3, has_mtp=True),
    "LlamaForCausalLM": Architecture(llama.layout, llama.describe, llama.DEFAULTS, sentencepiece=True),
    "MixtralForCausalLM": Architecture(mixtral.layout, mixtral.describe, mixtral.DEFAULTS, sentencepiece=True),
    "Qwen2ForCausalLM": Architecture(qwen.layout_2, qwen.describe, qwen.DEFAULTS_2, sentencepiece=True),
    "Qwen3ForCausalLM": Architecture(qwen.layout_3, qwen.describe, qwen.DEFAULTS_3, sentencepiece=True),
    "Qwen3MoeForCausalLM": Architecture(qwen.layout_3_moe, qwen.describe_moe, qwen.DEFAULTS_3_MOE),
}


def configured(values: Mapping[str, Any], path: Path, *, keep_mtp: bool = False) -> tuple[Architecture, Config]:
    """The architecture of the config.json at `path` with the object `values`, and its settings with defaults.

    Raises Incompatible for an unknown architecture, and where `keep_mtp` asks for layers that are not there."""
    config = Config(values, path)
    architecture = _architecture(config)
    config = config.with_defaults(**architecture.defaults)
    if not keep_mtp:
        return architecture, config.without_mtp()
    if not architecture.has_mtp or not config.mtp_layers:
        raise Incompatible(f"{path}: this model has no MTP layers that could be kept", hint="leave out --keep-mtp")
    return architecture, config


def _architecture(config: Config) -> Architecture:
    for name in config.architectures:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    note = "; the code it brings along is never run" if config.has("auto_map") else ""
    raise Incompatible(
        f"{config.path}: the architecture {config.architectures[0]} is not known here{note}",
        hint=f"known are {', '.join(ARCHITECTURES)}",
    )
