"""A tiny checkpoint with random weights of any class that can be converted, made with numpy alone.

`configs/tiny/` has a config.json for each class. The names and shapes of its tensors are those of the class's own
table; tests/peers/convert.py and tests/peers/logits.py show that llama.cpp's converter and transformers agree.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from quant.convert.architectures import configured
from quant.convert.facts import Facts
from quant.convert.family import Family
from quant.convert.layout import lay_out
from tests.quant.tiny import (
    SPECIAL,
    TEMPLATE,
    Array,
    Stored,
    byte_level,
    byte_level_tokenizer,
    sentencepiece_model,
    stored,
    write_safetensors,
)
from tests.quant.tiny import _save_tokenizer as save_tokenizer
from tests.quant.tokenizers import fallback_tokenizer, rwkv_vocabulary

# Classes for which the converter wants a tokenizer.model
_WITH_PIECES = ("Gemma", "Jamba", "Phi3", "PhiMoE")
# Classes whose attention is not divided by the root of the head's length: the norms of queries and keys do that.
_UNSCALED = ("Gemma3n", "Gemma4")
# Tokens that the converter looks for in the tokenizers of GLM and Solar
_GLM = tuple(
    (text, True) for text in ("[gMASK]", "<|user|>", "<|endoftext|>", "<|observation|>", "<unk>", "<|startoftext|>")
)
_TABLE = "model.embed_tokens.weight"
# Numbers of the activation xIELU as transformers starts with them
_XIELU = {"alpha_p": 0.203, "alpha_n": -1.05, "beta": 0.5, "eps": -1e-6}
CONFIGS = Path(__file__).parent / "configs" / "tiny"
MODELS = tuple(sorted(path.stem for path in CONFIGS.glob("*.json")))
# Models whose layers for multi-token prediction are kept.
KEEPING = frozenset(name for name in MODELS if name.endswith("-mtp"))


def config_of(name: str) -> dict[str, Any]:
    """The config.json of the model `name`: a class, or "class-variant"."""
    return dict(json.loads((CONFIGS / f"{name}.json").read_text()))


def make_tiny(
    name: str, folder: Path, *, dtype: str = "BF16", changes: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Write the checkpoint: config.json, model.safetensors with weights of `dtype`, a tokenizer of 272 tokens.

    `changes` replace values of config.json, for one that is not tiny."""
    folder.mkdir(parents=True)
    config = config_of(name) | changes
    config.setdefault("torch_dtype", {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype])
    (folder / "config.json").write_text(json.dumps(config))
    family, facts = configured(config, folder / "config.json", keep_mtp=name in KEEPING)
    layout = lay_out(family, facts)
    optional = {source for target in layout.targets if target.optional for source in target.after}
    tensors: dict[str, Stored] = {}
    for source, shape in layout.sources.items():
        if source in optional:
            continue
        published = _published(source, family, facts, multimodal="text_config" in config)
        if source.endswith("_blocks"):
            tensors |= random_mxfp4(published, shape)
        else:
            values = plausible(source, shape, unscaled=name.startswith(_UNSCALED))
            tensors[published] = stored(values, "F32" if source.endswith("correction_bias") else dtype)
    if family.suppresses:  # the last three tokens have no embedding; the converter reads it by the index of the shards
        table = plausible(_TABLE, layout.sources[_TABLE])
        table[-3:] = 0
        tensors[_TABLE] = stored(table, dtype)
        index = {"weight_map": dict.fromkeys(tensors, "model.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for _, source in family.numbers:
        for layer in range(facts.layers):
            kind = source.rpartition(".")[2]
            number = np.array(_XIELU[kind], np.float32).reshape((1,) if "alpha" in kind else ())
            tensors[source.replace("{n}", str(layer))] = stored(number, dtype)
    write_safetensors(folder / "model.safetensors", tensors)
    _save_tokenizer(folder, name.partition("-")[0])


def _save_tokenizer(folder: Path, class_name: str) -> None:
    """The kind of tokenizer that llama.cpp's converter wants for the class; mostly a byte-level one."""
    if class_name.startswith("Gemma4"):
        settings: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        settings |= {"extra_special_tokens": {"x_token": "<|im_end|>"}}
        save_tokenizer(folder, fallback_tokenizer(prepend=False), settings)
    elif class_name.startswith("RWKV"):
        rwkv_vocabulary(folder)
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    elif class_name.startswith(_WITH_PIECES):
        last = "<|endoftext|>" if class_name.startswith("Phi") else "▁user"  # the engine looks for Phi's by name
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(("▁the", "▁a", "in", last)))
        settings = {"tokenizer_class": "LlamaTokenizer", "chat_template": TEMPLATE}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    else:
        more = _GLM if class_name.startswith(("Glm", "Solar")) else ()
        added = (*SPECIAL[:-1], *more, SPECIAL[-1])  # the last one has the number of a byte
        save_tokenizer(folder, byte_level_tokenizer([byte_level(True)], added=added), {"eos_token": "<|end|>"})
        if class_name.startswith("MiniMaxM1"):  # the converter would put a template of its own there
            (folder / "chat_template.jinja").write_text(TEMPLATE)


def _published(name: str, family: Family, facts: Facts, *, multimodal: bool) -> str:
    """The name that a published checkpoint has for a tensor of the family's table."""
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    if layer and family.mtp_layers and int(layer[1]) >= facts.layers:
        return f"{family.mtp_layers}{int(layer[1]) - facts.layers}.{name[layer.end() :]}"
    if multimodal and family.architecture == "llama4":  # the one kind that transformers does not rename as it reads
        return f"language_model.{name}"
    return name.replace("model.", "model.language_model.", 1) if multimodal and name.startswith("model.") else name


def random_mxfp4(name: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    """Blocks of 32 codes with a factor each, as gpt-oss has them: two tensors."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    blocks = (*shape[:-1], shape[-1] // 32)
    codes = draw.integers(0, 256, (*blocks, 16), np.uint8)
    factors = draw.integers(121, 125, blocks, np.uint8)  # powers of two around 1/16
    return {
        name: ("U8", codes.shape, codes.tobytes()),
        name.removesuffix("_blocks") + "_scales": ("U8", factors.shape, factors.tobytes()),
    }


def plausible(name: str, shape: tuple[int, ...], *, unscaled: bool = False) -> Array:
    """Random numbers of a size that trained weights have, so that logits tell equal models from different ones."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    values: Array = draw.standard_normal(shape, np.float32)
    if name.endswith("A_log"):  # few values, since torch rounds one exponential in a hundred differently
        return np.round(np.abs(values) * 2) / 2
    if len(shape) == 1:
        around = 1 if "norm" in name or "scal" in name else 0
        if unscaled and name.endswith(("q_norm.weight", "k_norm.weight")):
            return (around + values / 10) * np.float32(shape[0] ** -0.25)
        return around + values / 10
        return 1 + values / 10 if "norm" in name else values / 10
    return values / np.float32(np.sqrt(shape[-1]))
