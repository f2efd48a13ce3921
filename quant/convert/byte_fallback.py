"""The vocabulary of a BPE tokenizer.json with byte fallback: SentencePiece's kind of BPE, in the form of transformers.

Rules: LlamaHfVocab of gguf-py/gguf/vocab.py and Gemma4Model of conversion/gemma.py in llama.cpp. One is better here.
The engine's `llama` tokenizer merges by the scores of the tokens. llama.cpp's converter gives all of them one score,
which cuts words in the wrong places. dsr derives the scores from the order of the merges: a SentencePiece model that
was converted to tokenizer.json gets its own order of merges back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import TokenType

from quant.convert.byte_level import added_tokens, merges
from quant.convert.vocabulary import NEVER, SPACE, UNLIKELY, Vocabulary, filled, proper_number
from quant.convert.vocabulary_rules import VocabularyRules

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def byte_fallback(
    tokenizer: Mapping[str, Any], config: Mapping[str, Any], rules: VocabularyRules, size: int, path: Path
) -> Vocabulary:
    """The vocabulary in `tokenizer`, the object of the tokenizer.json at `path`; `config` is tokenizer_config.json's.

    Raises BadModelFile."""
    model = tokenizer["model"]
    vocabulary = model["vocab"]
    added = added_tokens(tokenizer, config, vocabulary, path)
    control = _named_special(config) | {text for text, each in added.items() if each.get("special")}
    known: dict[int, tuple[str | bytes, int]] = {}
    for token, number in (*vocabulary.items(), *((token, each["id"]) for token, each in added.items())):
        known[proper_number(token, number, path)] = token, _type(token, token in vocabulary, control)
    tokens, types = filled(known, size, path)
    pairs = merges(model, path)
    ours = rules.fallback_model == "llama"
    scores = _scores(tokens, types, pairs) if ours else [UNLIKELY] * size
    return Vocabulary(
        rules.fallback_model,
        tokens,
        types,
        pre="default" if ours else "",
        scores=scores,
        merges=() if ours else pairs,
        added={text: each["id"] for text, each in added.items()},
        space_prefix=begins_with_space(tokenizer),
    )


def begins_with_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the tokenizer puts a space before a text, by its normalizer or its pre-tokenizer."""

    def steps(value: Any, key: str) -> list[Mapping[str, Any]]:
        if not isinstance(value, Mapping):
            return []
        inner = value.get(key)
        return [each for each in inner if isinstance(each, Mapping)] if isinstance(inner, list) else [value]

    prepends = any(
        each.get("type") == "Prepend" and each.get("prepend") == SPACE
        for each in steps(tokenizer.get("normalizer"), "normalizers")
    )
    return prepends or any(
        each.get("type") == "Metaspace"
        and each.get("prepend_scheme", "always" if each.get("add_prefix_space", True) else "never") != "never"
        for each in steps(tokenizer.get("pre_tokenizer"), "pretokenizers")
    )


def _named_special(config: Mapping[str, Any]) -> set[str]:
    """The special tokens that tokenizer_config.json names: as X_token, and in its lists of more."""
    values: list[Any] = [value for key, value in config.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"):
        more = config.get(key)
        values += more.values() if isinstance(more, Mapping) else more if isinstance(more, list) else ()
    texts = (value.get("content") if isinstance(value, Mapping) else value for value in values)
    return {text for text in texts if isinstance(text, str)}


def _type(token: str, in_vocabulary: bool, control: set[str]) -> int:
    if in_vocabulary and _BYTE.fullmatch(token):
        return int(TokenType.BYTE)
    if token in control:
        return int(TokenType.CONTROL)
    return int(TokenType.NORMAL if in_vocabulary else TokenType.USER_DEFINED)


def _scores(tokens: tuple[bytes, ...], types: tuple[int, ...], pairs: tuple[bytes, ...]) -> list[float]:
    """The score of each token: the earlier a merge yields it, the higher."""
    first: dict[bytes, int] = {}
    for rank, pair in enumerate(pairs):
        first.setdefault(pair[:1] + pair[1:].replace(b" ", b"", 1), rank)
    return [
        NEVER if kind == TokenType.UNUSED else -float(first[token]) if token in first else UNLIKELY - len(pairs)
        for token, kind in zip(tokens, types, strict=True)
    ]
