"""The special tokens of a tokenizer (begin, end, separate, pad), whether it adds them itself, and the chat template.

The rules, odd ones included, are those of gguf's SpecialVocab (gguf-py/gguf/vocab.py of llama.cpp as vendored in
llama-cpp-python 0.3.36), because the file must behave as a file of llama.cpp's converter does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quant.sources.checkpoint import Checkpoint
from runtime.base.errors import PUBLISHED, BadModelFile

_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(slots=True)
class SpecialTokens:
    """Token numbers and flags, both by "bos", "eos", ... in GGUF's order.

    `add` says whether the tokenizer adds the token to every text. `chat_template` is a text, a list of objects with
    name and template, or None."""

    ids: dict[str, int] = field(default_factory=dict)
    add: dict[str, bool] = field(default_factory=dict)
    chat_template: Any = None


def special_tokens(checkpoint: Checkpoint, tokenizer: Mapping[str, Any], size: int) -> SpecialTokens:
    """Returns the special tokens in `tokenizer` (the object of tokenizer.json), tokenizer_config.json and config.json.
    Numbers from `size` on are ignored: no token has them."""
    config = dict(checkpoint.json("tokenizer_config.json") or {})
    found = SpecialTokens()
    names = list(_NAMES)
    if tokenizer:
        config["bos_token"] = config.get("bos_token") or config.get("cls_token")
        config["eos_token"] = config.get("eos_token") or config.get("sep_token")
        for processor in _processors(tokenizer.get("post_processor")):
            _process(processor, config, found, names)
    numbers: dict[Any, Any] = {}
    for each in listed(tokenizer, "added_tokens", checkpoint.folder / "tokenizer.json"):
        if isinstance(each, Mapping) and isinstance(each.get("content"), str):
            numbers.setdefault(each["content"], each.get("id"))
    found.chat_template = chat_template(checkpoint, config)
    for name in names:
        flag = config.get(f"add_{name}_token")
        if isinstance(flag, bool):
            found.add.setdefault(name, flag)
        _set(found, name, numbers.get(_text(config.get(f"{name}_token"))), size)
    text = checkpoint.config.get("text_config")  # of a model that also sees or hears
    for name in names:
        number = checkpoint.config.get(f"{name}_token_id")
        if number is None and isinstance(text, Mapping):
            number = text.get(f"{name}_token_id")
        _set(found, name, number, size)
    return found


def listed(values: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    """The list `values[key]` of the file at `path`; empty without one. Raises BadModelFile for anything else."""
    found = values.get(key)
    if found is not None and not isinstance(found, list):
        raise BadModelFile(path, f"{key} is not a list", hint=PUBLISHED)
    return found or []


def _set(found: SpecialTokens, name: str, number: Any, size: int) -> None:
    if type(number) is int and 0 <= number < size:
        found.ids.setdefault(name, number)


def _text(value: Any) -> str | None:
    """Returns the text of a token: `value` is the text, or an object with the key "content"."""
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) else None


def _processors(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        return []
    listed = value.get("processors", [value])
    return [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []


def _process(processor: Mapping[str, Any], config: dict[str, Any], found: SpecialTokens, names: list[str]) -> None:
    """Add to `found` and `config` the tokens that one post-processor puts around a text."""
    kind = processor.get("type")
    if kind == "ByteLevel":
        found.add.setdefault("bos", False)
        found.add.setdefault("eos", False)
    elif kind == "RobertaProcessing":
        found.add |= {"bos": True, "eos": True, "sep": True}
        for name in ("cls", "sep"):
            pair = processor.get(name)
            if not config.get(f"{name}_token") and isinstance(pair, list) and pair:
                config[f"{name}_token"] = pair[0]
    elif kind == "TemplateProcessing":
        _process_template(processor, config, found, names)


def _process_template(
    processor: Mapping[str, Any], config: dict[str, Any], found: SpecialTokens, names: list[str]
) -> None:
    single, pair = _items(processor.get("single")), _items(processor.get("pair"))
    first = last = None
    if len(single) > 1:
        first, last = single[0][1], single[-1][1]
    if first:
        if first not in (config.get("bos_token"), config.get("cls_token")):
            config["bos_token"] = config.get("bos_token") or first
            config["cls_token"] = config.get("cls_token") or first
        found.add["bos"] = first in (config.get("bos_token"), config.get("cls_token"))
    if last:
        if last != config.get("eos_token"):
            spare = next((name for name in ("eot", "eom") if name not in names), None)
            if spare:
                names.append(spare)
                config[f"{spare}_token"] = config.get("eos_token")
            config["eos_token"] = last
        found.add["eos"] = True
    if not pair:
        return
    if first and pair[0][1] == first:
        pair = pair[1:]
    if last and pair and pair[-1][1] == last:
        pair = pair[:-1]
    between = pair[1:-1]
    if len(pair) < 2 or pair[0][0] != "A" or pair[-1][0] != "B" or not between:
        return
    separators = (config.get("sep_token"), config.get("eos_token"))
    add = bool(between[0][1]) and between[0][1] in separators and not last
    add = add or (len(between) == 2 and bool(between[1][1]) and between[1][1] in separators)
    found.add["sep"] = add
    if add and not config.get("sep_token"):
        config["sep_token"] = config.get("eos_token")


def _items(value: Any) -> list[tuple[str | None, str | None]]:
    """Returns each item of a template as (name of a text, None) or (None, special token)."""
    items = []
    for each in value if isinstance(value, list) else ():
        sequence, token = (
            (each.get("Sequence"), each.get("SpecialToken")) if isinstance(each, Mapping) else (None, None)
        )
        text = sequence.get("id") if isinstance(sequence, Mapping) else None
        special = token.get("id") if isinstance(token, Mapping) else None
        items.append((text, special))
    return items


def chat_template(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Any:
    """Returns the template of tokenizer_config.json, else of chat_template.jinja and additional_chat_templates, else of
    chat_template.json."""
    if not config:
        return None
    if "chat_template" in config:
        return config["chat_template"]
    text = checkpoint.text("chat_template.jinja")
    if text is None:
        return (checkpoint.json("chat_template.json") or {}).get("chat_template")
    more = sorted((checkpoint.folder / "additional_chat_templates").glob("*.jinja"))
    if not more:
        return text
    others = [{"name": path.stem, "template": checkpoint.text(f"{path.parent.name}/{path.name}")} for path in more]
    return [{"name": "default", "template": text}, *others]
