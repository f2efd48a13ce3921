"""Hostile checkpoints: each is a tiny sound one with one or two things changed that no vendor would publish.

Used by tests/quant/test_hostile_checkpoints.py with a few, and by tests/peers/hostile_checkpoints.py with thousands.
"""

from __future__ import annotations

import json
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from quant.convert.conversion import check_convertible
from quant.open_source import open_source
from quant.recipe import recipe
from quant.sources.shards import json_object
from quant.write.execute import quantize
from runtime.base.errors import DsrError
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from tests.quant import tiny, tiny_models

Files = dict[str, bytes]
Change = Callable[[Files, random.Random], str]

_DEEP: Any = 1
for _ in range(400):
    _DEEP = [_DEEP]
VALUES: tuple[Any, ...] = (
    -1, 0, 1, 3, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**400, -(10**400), 1e308, 1e-308, 0.5, -0.0, float("inf"),
    float("nan"), "", "x", "7", "\ud800", "a" * 5000, [], {}, [1], [-1, 2**70], {"a": 1}, True, False, None, _DEEP,
    [0] * 3000,
)  # fmt: skip
# Those of which a list for each layer is made, and settings of a rotation.
_MORE_VALUES: tuple[Any, ...] = (
    [0] * 12, [1] * 12, [7] * 12, ["x"] * 12, ["full_attention"] * 12, ["sliding_attention"] * 12, [[1]] * 12,
    [1.5] * 12,
    {"full_attention": 7}, {"rope_type": "llama3", "factor": 1e-38, "rope_theta": 1e300}, {"rope_type": "yarn"},
    {"rope_type": ["x"]}, {"type": "longrope", "factor": 0},
)  # fmt: skip
# Fields that the converter knows besides those of the tiny models.
_FIELDS = (
    "head_dim", "num_key_value_heads", "rope_scaling", "rope_parameters", "quantization_config", "torch_dtype", "dtype",
    "first_k_dense_replace",
    "moe_layer_freq", "n_group", "topk_group", "scoring_func", "topk_method", "mlp_only_layers",
    "decoder_sparse_step", "num_nextn_predict_layers", "q_lora_rank", "kv_lora_rank", "attention_bias", "pad_token_id",
    "eos_token_id", "n_shared_experts", "num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok",
    "shared_expert_intermediate_size", "routed_scaling_factor", "norm_topk_prob", "architectures", "quantization",
)  # fmt: skip
_RAW = (
    b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"<!doctype html>", b"version https://git-lfs.github.com/spec/v1\n",
    b"GGUF\3\0\0\0", b"\x80\x04\x95cos\nsystem\n", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000,
)  # fmt: skip
_LENGTHS = (0, 1, 7, 2**31, 2**32, 2**63, 2**64 - 1, 100_000_001)
_NAMES = (
    "consolidated.safetensors", "adapter_model.safetensors", "model.fp16.safetensors", "pytorch_model.bin",
    "model-00001-of-99999.safetensors", "model-00002-of-00001.safetensors", "visual.safetensors",
    "quantize_config.json",
    "adapter_config.json", "tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "model.safetensors.index.json",
    "chat_template.json", "chat_template.jinja", "added_tokens.json", "generation_config.json", "x.gguf",
    "tokenizer.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hostile:
    """A checkpoint with what was changed in words. `weights`: whether it is to be converted, or only planned."""

    what: str
    files: Files
    weights: bool


def hostile(count: int, seed: int) -> Iterator[Hostile]:
    """`count` checkpoints; the same for the same seed. Each model has its turn: those of `tiny`, which have all kinds
    of quantization and tokenizers, and those of every class."""
    names = [*tiny.CASES, *tiny_models.MODELS]
    random.Random(seed).shuffle(names)
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        name = names[number % len(names)]
        files = dict(_sound(name))
        changes = [chance.choice(_CHANGES)(files, chance) for _ in range(chance.choice((1, 1, 2)))]
        weights = chance.random() < 0.7
        if not weights:
            files = {each: raw for each, raw in files.items() if not each.endswith(".safetensors")}
        yield Hostile(f"{number} {name}: {'; '.join(changes)}", files, weights)


@cache
def _sound(name: str) -> Files:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / name
        if name in tiny.CASES:
            tiny.CASES[name][0](folder)
        else:
            tiny_models.make_tiny(name, folder)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def hostile_configs() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every key of the config.json of every class in every hostile value: what is changed, and the object."""
    for name in tiny_models.MODELS:
        sound = tiny_models.config_of(name)
        inner = sound.get("text_config")
        for key in (*(inner if isinstance(inner, dict) else sound), *_FIELDS):
            for value in (*VALUES, *_MORE_VALUES):

                def changed(name: str = name, key: str = key, value: Any = value) -> dict[str, Any]:
                    config = tiny_models.config_of(name)
                    config.get("text_config", config)[key] = value
                    return config

                yield f"{name} {key} = {str(value)[:40]}", changed


def _json_field(files: Files, chance: random.Random, name: str, extra: tuple[str, ...] = ()) -> str:
    """Set a field of a JSON file, at any depth, to a hostile value."""
    try:
        value = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, (dict, list)):
        return f"{name} stays"
    place = value
    path = []
    for _ in range(4):
        keys = list(place) if isinstance(place, dict) else list(range(min(len(place), 40)))
        if place is value and isinstance(place, dict):
            keys += [each for each in extra if each not in keys]
        if not keys:
            break
        key = chance.choice(keys)
        path.append(str(key))
        inner = place[key] if isinstance(place, list) or key in place else None
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.6:
            place = inner
            continue
        place[key] = chance.choice(VALUES)
        files[name] = json.dumps(value).encode()
        return f"{name} {'.'.join(path)} = {str(place[key])[:40]}"
    return f"{name} stays"


def _config(files: Files, chance: random.Random) -> str:
    return _json_field(files, chance, "config.json", _FIELDS)


def _small_file(files: Files, chance: random.Random) -> str:
    names = [name for name in files if name.endswith((".json", ".jinja", ".model")) and name != "config.json"]
    if not names:
        return "no small file"
    name = chance.choice(names)
    if name.endswith(".json") and chance.random() < 0.7:
        return _json_field(files, chance, name, ("chat_template", "added_tokens_decoder", "bos_token", "add_bos_token"))
    return _raw(files, chance, name)


def _raw(files: Files, chance: random.Random, name: str) -> str:
    """Another content, a cut, or a few bytes changed."""
    raw, way = files[name], chance.randrange(3)
    at = chance.randrange(len(raw) + 1)
    new = chance.choice(_RAW) if way == 0 else raw[:at] if way == 1 else raw[:at] + chance.randbytes(4) + raw[at + 4 :]
    files[name] = new
    return f"{name} {('is other content', 'is cut', 'has other bytes')[way]} ({at} of {len(raw)})"


def _any_file(files: Files, chance: random.Random) -> str:
    return _raw(files, chance, chance.choice(list(files)))


def _header(files: Files, chance: random.Random) -> str:
    """Change the header of a safetensors file."""
    names = [name for name in files if name.endswith(".safetensors")]
    name = chance.choice(names) if names else ""
    raw = files.get(name, b"")
    length = int.from_bytes(raw[:8], "little")
    try:
        header = json.loads(raw[8 : 8 + length])
        tensor = chance.choice(list(header))
        entry = dict(header[tensor])
    except (ValueError, IndexError, TypeError, RecursionError):
        return f"{name} stays"
    way = chance.randrange(7)
    if way == 0:
        files[name] = chance.choice(_LENGTHS).to_bytes(8, "little") + raw[8:]
        return f"{name}: another header length"
    if way == 1:
        entry["dtype"] = chance.choice(["F64", "U8", "I4", "F8_E5M2", "", *VALUES])
    elif way == 2:
        entry["shape"] = chance.choice([[2**40, 2**40], [2**62, 4], [0], [1] * 70, [-1, -1], [True], *VALUES])
    elif way == 3:
        entry["data_offsets"] = chance.choice([[0, 0], [5, 1], [0, 2**63], [2**64, 2**65], [0, 10**400], [1], *VALUES])
    elif way == 4:
        other = chance.choice(list(header))
        entry["data_offsets"] = header[other].get("data_offsets") if isinstance(header[other], dict) else None
    elif way == 5:
        header[chance.choice(["", "x" * 9000, "model.embed_tokens.weight.extra", "../x", "\0", "x.lora_A.weight"])] = (
            entry
        )
    text = json.dumps(header | {tensor: entry}).encode()
    if way == 6:
        text = text[:-1] + b"," + json.dumps({tensor: entry}).encode()[1:]
    files[name] = len(text).to_bytes(8, "little") + text + raw[8 + length :]
    return f"{name}: the header's {tensor} was changed in way {way}"


def _index(files: Files, chance: random.Random) -> str:
    name = "model.safetensors.index.json"
    shards = [each for each in files if each.endswith(".safetensors")] or ["model.safetensors"]
    odd = [
        *shards,
        "../x.safetensors",
        "/etc/passwd",
        "absent.safetensors",
        "pytorch_model.bin",
        "a\\b",
        "",
        7,
        None,
        [],
    ]
    tensors = ["model.embed_tokens.weight", "lm_head.weight", "x", ""]
    weight_map: Any = {chance.choice(tensors): chance.choice(odd) for _ in range(3)}
    value = chance.choice([{"weight_map": weight_map}, {"weight_map": chance.choice(VALUES)}, chance.choice(VALUES)])
    files[name] = json.dumps(value).encode()
    return f"an index {str(value)[:60]}"


def _listing(files: Files, chance: random.Random) -> str:
    """A file more, a file less, or a file under another name."""
    way, name, target = chance.randrange(3), chance.choice(list(files)), chance.choice(_NAMES)
    if way == 0:
        files[target] = chance.choice([files[name], *_RAW])
    else:
        raw = files.pop(name)
        if way == 2:
            files[target] = raw
    return f"{('more', 'less', 'renamed')[way]}: {name} {target}"


_CHANGES: tuple[Change, ...] = (
    *(_config, _config, _config, _header, _header),
    *(_small_file, _small_file, _any_file, _index, _listing),
)


def outcome(checkpoint: Hostile, folder: Path) -> str:
    """What dsr does with a checkpoint in an empty folder: "" when it is converted or planned, else the error.

    A DsrError of one line is what should happen; every other exception, and every warning, is a fault and is raised.
    """
    for name, raw in checkpoint.files.items():
        (folder / name).write_bytes(raw)
    made = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            if "config.json" in checkpoint.files:
                config = folder / "config.json"
                with suppress(DsrError):  # what is wrong with config.json is said again below
                    check_convertible(json_object(config.read_bytes(), config), config, checkpoint.files)
            with open_source(folder, weights=checkpoint.weights) as source:
                plan = recipe.plan(recipe.load("q8_0"), source)
                if checkpoint.weights:
                    quantize(source, plan, folder / "out.gguf", Run())
                    made = True
        except DsrError as error:
            if "\n" in error.message or len(error.message) > 2000:
                raise AssertionError(f"not one line: {error.message[:300]!r}") from error
            return error.message
    if made:
        read_card(folder / "out.gguf")  # raises if dsr wrote a file that it would refuse itself
    return ""
