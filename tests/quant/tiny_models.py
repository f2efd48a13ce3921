"""A tiny checkpoint with random weights of any class that can be converted, made with numpy alone.

`configs/tiny/` has a config.json for each class. The names and shapes of its tensors are those of the class's own
table; tests/peers/convert.py and tests/peers/logits.py show that llama.cpp's converter and transformers agree.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from quant.convert.architectures import configured
from quant.convert.layout import lay_out
from tests.quant.tiny import SPECIAL, Array, byte_level, byte_level_tokenizer, stored, write_safetensors
from tests.quant.tiny import _save_tokenizer as save_tokenizer

CONFIGS = Path(__file__).parent / "configs" / "tiny"
MODELS = tuple(sorted(path.stem for path in CONFIGS.glob("*.json")))


def config_of(name: str) -> dict[str, Any]:
    """The config.json of the model `name`: a class, or "class-variant"."""
    return dict(json.loads((CONFIGS / f"{name}.json").read_text()))


def make_tiny(name: str, folder: Path, *, dtype: str = "BF16", keep_mtp: bool = False) -> None:
    """Write the checkpoint: config.json, model.safetensors with weights of `dtype`, a tokenizer of 272 tokens.

    With `keep_mtp` it has the layers for multi-token prediction, too."""
    folder.mkdir(parents=True)
    config = config_of(name)
    config.setdefault("torch_dtype", {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype])
    (folder / "config.json").write_text(json.dumps(config))
    family, facts = configured(config, folder / "config.json", keep_mtp=keep_mtp)
    layout = lay_out(family, facts)
    optional = {source for target in layout.targets if target.optional for source in target.after}
    tensors = {
        source: stored(plausible(source, shape), "F32" if source.endswith("correction_bias") else dtype)
        for source, shape in layout.sources.items()
        if source not in optional
    }
    write_safetensors(folder / "model.safetensors", tensors)
    save_tokenizer(folder, byte_level_tokenizer([byte_level(True)], added=SPECIAL), {"eos_token": "<|end|>"})


def plausible(name: str, shape: tuple[int, ...]) -> Array:
    """Random numbers of a size that trained weights have, so that logits tell equal models from different ones."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    values: Array = draw.standard_normal(shape, np.float32)
    if len(shape) == 1:
        if name.endswith("A_log"):
            return np.log(1 + np.abs(values))
        return 1 + values / 10 if "norm" in name else values / 10
    return values / np.float32(np.sqrt(shape[-1]))
