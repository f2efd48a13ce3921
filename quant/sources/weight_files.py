"""Which files of a listing are the weights of a checkpoint. Pure: the listing is a folder or a repository of the hub.

The rule is the one of transformers (`from_pretrained`): the index decides; without one model.safetensors, then the
shards model-00001-of-0000N, then a variant such as model.fp16.safetensors. `dsr pull` and `dsr quantize` both ask here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from runtime.base.errors import Incompatible, NotFound, UsageError, VerificationFailed
from runtime.base.quoted import spelled
from runtime.base.safetensors import LONGEST_NAME
from runtime.base.shard_names import is_whole, missing_shards, shard_of
from runtime.base.types import counted, listed

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
# The files next to the weights that a conversion reads: configuration, how weights are quantized, tokenizer, templates.
SETTINGS = frozenset(
    (
        *("config.json", "generation_config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json"),
        *(
            "tokenizer.json",
            "tokenizer_config.json",
            "added_tokens.json",
            "tokenizer.model",
            "vocab.json",
            "merges.txt",
        ),
        *("tekken.json", "tiktoken.model", "hy.tiktoken", "rwkv_vocab_v20230424.txt"),
        *("chat_template.jinja", "chat_template.json"),
    )
)
_INSTEAD = ("tekken.json", "vocab.json", "merges.txt")  # of tokenizer.json, where there is none
_WHOLE = "model.safetensors"
_VARIANTS = ("bf16", "fp16", "fp32")  # of two the smaller; BF16 has the range of FP32
_VARIANT_BEHIND_NUMBER = re.compile(r"(model)(-[0-9]{5}-of-[0-9]{5,6})(\.\w+)(\.safetensors)\Z")
_OTHERS = (
    ("adapter", re.compile(r"(?!model\b).*(?:\badapter|(?:\b|_)lora(?:\b|_)).*", re.IGNORECASE)),
    ("consolidated file", re.compile(r"consolidated\b.*", re.IGNORECASE)),
    ("vision tower", re.compile(r".*(?:vision|visual|mm_?proj|image_|audio_|speech_).*", re.IGNORECASE)),
)
_TRAINING = re.compile(r"(?:training_args|optimizer|scheduler|rng_state|trainer_state|scaler)")  # left by a trainer
_RAW_PART = re.compile(
    r".+\.gguf(?:[.-](?:part|split)[-_.]?(?:[0-9]+(?:[-_]?of[-_]?[0-9]+)?|[a-z]{1,3})|\.[0-9]{2,4}|\.a[a-z])\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """`names` are the files, in order; none where a listing has no weights. `weight_map` is the index's: which file has
    which tensor; None without an index."""

    names: tuple[str, ...]
    weight_map: Mapping[str, str] | None = None


def index_of(listing: Collection[str]) -> str | None:
    """The index to read before `weight_files` is asked; None if a listing has none that matters."""
    if INDEX in listing:
        return INDEX
    if any(shard_of(name)[0] == "model" for name in listing if _is_weights(name)):
        return None
    variants = (f"model.safetensors.index.{variant}.json" for variant in _VARIANTS)
    return next((name for name in variants if name in listing), None)


def weight_files(listing: Collection[str], index: Mapping[str, Any] | None = None) -> WeightFiles:
    """The weights among the paths of `listing`; `index` is the object in the file that `index_of` names.

    Raises VerificationFailed (an index that is not one), NotFound (files that are missing), UsageError (several
    checkpoints), Incompatible (pickles, adapters and other files that are no checkpoint).
    """
    top = {name for name in listing if "/" not in name}
    if index is not None:
        weight_map = _weight_map(index)
        names = sorted(set(weight_map.values()))
        missing = [name for name in names if name not in top]
        if not missing:
            return WeightFiles(tuple(names), weight_map)
        # The index of shards that were joined into one file: transformers takes that file too.
        if _WHOLE not in top or _WHOLE in names:
            raise _missing_files(len(missing), len(names), missing[0])
    return WeightFiles(_named(listing, top))


def settings_in(listing: Collection[str]) -> tuple[str, ...]:
    """The files of a listing that a conversion reads next to the weights, by name."""
    unread = _INSTEAD if "tokenizer.json" in listing else ()
    templates = (name for name in listing if name.startswith("additional_chat_templates/") and name.endswith(".jinja"))
    return tuple(sorted({*(SETTINGS.intersection(listing).difference(unread)), *templates}))


def other_weights(name: str) -> str:
    """What a weight file is that is not the model's own: "adapter", "consolidated file" or "vision tower"; else ""."""
    return next((kind for kind, pattern in _OTHERS if pattern.fullmatch(name)), "")


def may_be_weights(name: str) -> bool:
    """Whether a file looks like weights of any kind but GGUF, by its name."""
    return name.endswith((".safetensors", *PICKLES)) and not _TRAINING.match(name)


def is_raw_part(path: str) -> bool:
    """Whether a file is a piece of a GGUF file that was cut at any byte, such as x.gguf.part1of2."""
    return _RAW_PART.fullmatch(path) is not None


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") and not other_weights(name)


def _weight_map(index: Mapping[str, Any]) -> dict[str, str]:
    """Which file has which tensor. A file's name is never a path."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise VerificationFailed(f"{INDEX} has no weight_map")
    for tensor, name in weight_map.items():
        if len(tensor) > LONGEST_NAME:
            raise VerificationFailed(f"{INDEX} has a tensor with a name of {len(tensor)} characters")
        if (
            not isinstance(name, str)
            or name in ("", ".", "..")
            or any(mark in name for mark in "/\\\0")
            or len(name) > 255
        ):
            raise VerificationFailed(f"{INDEX} has an invalid file name for {spelled(tensor)}")
        if not name.endswith(".safetensors"):
            raise (
                _pickle(name)
                if name.endswith(PICKLES)
                else VerificationFailed(
                    f"{INDEX} names {spelled(name)} for {spelled(tensor)}, which is not a safetensors file"
                )
            )
    return weight_map


def _named(listing: Collection[str], top: Collection[str]) -> tuple[str, ...]:
    """The weights by their names alone."""
    checkpoints: dict[tuple[str, int, bool], list[str]] = {}  # the bool: one spelling of variants or the other
    for name in sorted(top):
        if _is_weights(name):
            stem, _, count = shard_of(_plain(name))
            checkpoints.setdefault((stem, count, name != _plain(name)), []).append(name)
    if not checkpoints:
        _refuse_others(listing, top)
        return ()
    stems = ("model", *(f"model.{variant}" for variant in _VARIANTS))
    for stem in stems:
        if f"{stem}.safetensors" in checkpoints.get((stem, 1, False), ()):
            return (f"{stem}.safetensors",)
        sharded = {key: names for key, names in checkpoints.items() if key[0] == stem}
        if sharded:
            return _one(sharded)
    likely = {key: names for key, names in checkpoints.items() if key[0].startswith("model")}
    return _one(likely or checkpoints)


def _one(checkpoints: Mapping[tuple[str, int, bool], list[str]]) -> tuple[str, ...]:
    """The files of the one checkpoint that is whole."""
    whole = [names for names in checkpoints.values() if is_whole(map(_plain, names))]
    if len(whole) == 1:
        return tuple(whole[0])
    if whole or len(checkpoints) > 1:
        first = [names[0] for names in (whole or checkpoints.values())]
        raise UsageError(
            f"there are {len(first)} checkpoints, and no {INDEX} says which one is the model: {listed(first, most=4)}",
            hint="take one of them alone in a folder, with its config.json and tokenizer",
        )
    (names,) = checkpoints.values()
    (missing,) = missing_shards(map(_plain, names))
    raise _missing_files(missing.number, missing.count, missing.first)


def _plain(name: str) -> str:
    """model-00001-of-00002.fp16.safetensors as model.fp16-00001-of-00002.safetensors."""
    return _VARIANT_BEHIND_NUMBER.sub(r"\1\3\2\4", name)


def _refuse_others(listing: Collection[str], top: Collection[str]) -> None:
    """Raise for files that are no checkpoint: say what they are."""
    kinds = {other_weights(name): name for name in sorted(top, reverse=True) if name.endswith(".safetensors")}
    if "adapter" in kinds or "adapter_config.json" in top:
        name = kinds.get("adapter", "adapter_config.json")
        raise Incompatible(f"an adapter (LoRA), not a model: {name}", hint="take the model that it was merged into")
    if "consolidated file" in kinds:
        raise Incompatible(
            f"the weights are in {kinds['consolidated file']}, in Mistral's own format, which dsr cannot convert",
            hint="take a version for transformers, with model.safetensors",
        )
    if "vision tower" in kinds:
        raise Incompatible(f"there is only a part for images or sound: {kinds['vision tower']}")
    pickled = sorted(name for name in listing if name.lower().endswith(PICKLES) and not _TRAINING.match(name))
    folders = sorted({name.rpartition("/")[0] for name in listing if "/" in name and _is_weights(_file_name(name))})
    if folders:
        raise NotFound(
            f"the weights are in folders: {listed(folders, most=4)}",
            hint=f"take one of them; for a repository: --include '{folders[0]}/*'",
        )
    if pickled:
        raise _pickle(pickled[0])


def _file_name(path: str) -> str:
    return PurePosixPath(path).name


def _missing_files(missing: int, count: int, first: str) -> NotFound:
    lacking = counted(missing, f"of {count} weight files is", f"of {count} weight files are")
    return NotFound(f"{lacking} missing: {first}", hint="pull the model again, or choose another repository")


def _pickle(name: str) -> Incompatible:
    return Incompatible(
        f"there are only pickle files: the weights are in {name}, a Python pickle, "
        "which could run any code and is never loaded",
        hint="take a version with GGUF or .safetensors files: most repositories have one",
    )
