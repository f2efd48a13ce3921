"""The vocabulary of byte-level BPE, from tokenizer.json or from vocab.json with merges.txt.

Rules: get_vocab_base of llama.cpp's converter (conversion/base.py), and what transformers does when it loads a fast
tokenizer, where it shows in the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import TokenType

from quant.convert.special_tokens import listed
from quant.convert.vocabulary import BYTE_OF, SPACE, Vocabulary, filled, looks_special, proper_number
from runtime.base.errors import PUBLISHED, BadModelFile


def byte_level(tokenizer: Mapping[str, Any], config: Mapping[str, Any], pre: str, size: int, path: Path) -> Vocabulary:
    """The vocabulary in `tokenizer`, the object of the tokenizer.json at `path`; `config` is tokenizer_config.json's.

    Raises BadModelFile."""
    model = tokenizer["model"]
    added = added_tokens(tokenizer, config, model["vocab"], path)
    texts: dict[int, str] = {}
    for token, number in (*model["vocab"].items(), *((token, each["id"]) for token, each in added.items())):
        texts[proper_number(token, number, path)] = token
    known = {number: _token(text, added.get(text)) for number, text in texts.items()}
    tokens, types = filled(known, size, path)
    return Vocabulary(
        "gpt2",
        tokens,
        types,
        pre=pre,
        merges=merges(model, path),
        added={text: each["id"] for text, each in added.items()},
    )


def added_tokens(
    tokenizer: Mapping[str, Any], config: Mapping[str, Any], vocabulary: Mapping[str, int], path: Path
) -> dict[str, dict[str, Any]]:
    """Returns added tokens by text: of tokenizer.json, then those only tokenizer_config.json has, then named
    special tokens that are mere vocabulary (PreTrainedTokenizerFast.__init__ of transformers)."""
    added: dict[str, dict[str, Any]] = {}
    for each in listed(tokenizer, "added_tokens", path):
        if not isinstance(each, dict) or not isinstance(each.get("content"), str):
            raise BadModelFile(path, "an added token has no text", hint=PUBLISHED)
        # A text that the vocabulary has keeps the number it has there.
        added[each["content"]] = {**each, "id": vocabulary.get(each["content"], each.get("id"))}
    decoder = config.get("added_tokens_decoder")
    for key, each in decoder.items() if isinstance(decoder, Mapping) else ():
        text = each.get("content") if isinstance(each, Mapping) else None
        if isinstance(text, str) and text not in added and number_of(key) is not None:
            added[text] = {**each, "id": vocabulary.get(text, number_of(key))}
    for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        value = config.get(f"{name}_token")
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str) and text not in added and text in vocabulary:
            added[text] = {"id": vocabulary[text], "special": True}
    return added


def merges(model: Mapping[str, Any], path: Path) -> tuple[bytes, ...]:
    """The merges of a BPE model, each as "a b"."""
    return tuple(_merge(merge, path) for merge in listed(model, "merges", path))


def number_of(text: str) -> int | None:
    """The number of a token, which JSON has as the name of a field."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _token(text: str, added: Mapping[str, Any] | None) -> tuple[str, int]:
    """Returns a token's text and type in the form of the engine."""
    if added is None:
        return text, TokenType.NORMAL
    if not added.get("normalized"):
        text = _decoded(text)
    if added.get("special") or looks_special(text):
        return text, TokenType.CONTROL
    return text.replace(SPACE, " "), TokenType.USER_DEFINED


def _decoded(text: str) -> str:
    """Returns the bytes of a token's text in a byte-level decoder, if every character stands for a byte."""
    codes = [BYTE_OF.get(character) for character in text]
    known = [code for code in codes if code is not None]
    return bytes(known).decode("utf-8", "replace") if len(known) == len(codes) else text


def _merge(merge: Any, path: Path) -> bytes:
    """ "a b", from that text or from ["a", "b"], in which spaces may be part of a token."""
    if isinstance(merge, str):
        return merge.encode("utf-8", "replace")
    if isinstance(merge, list) and len(merge) == 2 and all(isinstance(part, str) for part in merge):
        return " ".join(part.replace(" ", "Ġ") for part in merge).encode("utf-8", "replace")
    raise BadModelFile(path, "a merge is not two texts", hint=PUBLISHED)
