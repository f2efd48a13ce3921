"""A tiny checkpoint with random weights of any class that can be converted, made with numpy alone.

`configs/tiny/` has a config.json for each class. The names and shapes of its tensors are those of the class's own
table; tests/peers/convert.py and tests/peers/logits.py show that llama.cpp's converter and transformers agree.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from quant.convert.architectures import configured
from quant.convert.facts import Facts
from quant.convert.family import Family
from quant.convert.layout import lay_out
from tests.quant.tiny import SPECIAL, Array, byte_level, byte_level_tokenizer, stored, write_safetensors
from tests.quant.tiny import _save_tokenizer as save_tokenizer

CONFIGS = Path(__file__).parent / "configs" / "tiny"
MODELS = tuple(sorted(path.stem for path in CONFIGS.glob("*.json")))
# Models whose layers for multi-token prediction are kept.
KEEPING = frozenset(name for name in MODELS if name.endswith("-mtp"))


def config_of(name: str) -> dict[str, Any]:
    """The config.json of the model `name`: a class, or "class-variant"."""
    return dict(json.loads((CONFIGS / f"{name}.json").read_text()))


def make_tiny(name: str, folder: Path, *, dtype: str = "BF16") -> None:
    """Write the checkpoint: config.json, model.safetensors with weights of `dtype`, a tokenizer of 272 tokens."""
    folder.mkdir(parents=True)
    config = config_of(name)
    config.setdefault("torch_dtype", {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype])
    (folder / "config.json").write_text(json.dumps(config))
    family, facts = configured(config, folder / "config.json", keep_mtp=name in KEEPING)
    layout = lay_out(family, facts)
    optional = {source for target in layout.targets if target.optional for source in target.after}
    tensors = {
        _published(source, family, facts, multimodal="text_config" in config): stored(
            plausible(source, shape), "F32" if source.endswith("correction_bias") else dtype
        )
        for source, shape in layout.sources.items()
        if source not in optional
    }
    write_safetensors(folder / "model.safetensors", tensors)
    save_tokenizer(folder, byte_level_tokenizer([byte_level(True)], added=SPECIAL), {"eos_token": "<|end|>"})


def _published(name: str, family: Family, facts: Facts, *, multimodal: bool) -> str:
    """The name that a published checkpoint has for a tensor of the family's table."""
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    if layer and family.mtp_layers and int(layer[1]) >= facts.layers:
        return f"{family.mtp_layers}{int(layer[1]) - facts.layers}.{name[layer.end() :]}"
    return name.replace("model.", "model.language_model.", 1) if multimodal and name.startswith("model.") else name


def plausible(name: str, shape: tuple[int, ...]) -> Array:
    """Random numbers of a size that trained weights have, so that logits tell equal models from different ones."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    values: Array = draw.standard_normal(shape, np.float32)
    if len(shape) == 1:
        if name.endswith("A_log"):
            return np.log(1 + np.abs(values))
        return 1 + values / 10 if "norm" in name else values / 10
    return values / np.float32(np.sqrt(shape[-1]))
