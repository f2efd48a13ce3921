"""Vocabularies that list bytes with their ranks: tiktoken files (Kimi, Hunyuan) and Mistral's tekken.json.

Such a file has no merges: they follow from the ranks. Rules: DeepseekV2Model, HunYuanMoEModel and QwenModel.bpe
(conversion/deepseek.py, hunyuan.py, qwen.py), MistralVocab (gguf-py/gguf/vocab.py) of llama.cpp. The special tokens of
a tiktoken file are in the code that its repository brings along, which is never run: tokenization_kimi.py and
tokenization_hy.py, as their published versions have them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gguf import Keys, TokenType

from quant.convert.byte_level import number_of
from quant.convert.special_tokens import listed
from quant.convert.vocabulary import Vocabulary, filled, spelled_bytes
from quant.gguf import writer
from quant.gguf.writer import KeyValue
from runtime.base.errors import PUBLISHED, BadModelFile

Ranks = Mapping[bytes, int]

_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d{1,9})\r?\n?")
# Finding the merges of a token takes the square of its bytes. Kimi's 163,584 tokens have 11 million in all, tekken's
# 130,072 have 8 million; the longest token of either has 256 bytes.
_MOST_WORK = 1 << 28
_LONGEST = 1 << 10

_KIMI_RESERVED = 258  # num_reserved_special_tokens + 2, of tokenization_kimi.py
_HUNYUAN = ("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>")  # tokenization_hy.py
_HUNYUAN_EXTRA = 205
# Special tokens of a tekken.json that lists none (Tekkenizer.DEPRECATED_SPECIAL_TOKENS of mistral_common).
_TEKKEN = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)


def read_tiktoken(raw: bytes, path: Path) -> dict[bytes, int]:
    """The tokens in `raw`, the content of a tiktoken file, with their ranks. Raises BadModelFile."""
    ranks: dict[bytes, int] = {}
    for line in raw.splitlines(keepends=True):
        found = _LINE.fullmatch(line)
        if found is None:
            if line.strip():
                raise BadModelFile(path, "a line is not a token in base64 with its rank", hint=PUBLISHED)
            continue
        ranks.setdefault(_decoded(found[1], path), int(found[2]))
    _check_price(ranks, path)
    return ranks


def kimi(ranks: Ranks, config: Mapping[str, Any], pre: str, size: int, path: Path) -> Vocabulary:
    """The vocabulary of Kimi's tiktoken.model; `config` is the object of tokenizer_config.json. Raises BadModelFile."""
    decoder = config.get("added_tokens_decoder")
    names: dict[int, str] = {}
    for key, each in decoder.items() if isinstance(decoder, Mapping) else ():
        number, text = number_of(key), each.get("content") if isinstance(each, Mapping) else None
        if number is not None and isinstance(text, str):
            names[number] = text
    first = len(ranks)
    if set(ranks.values()) != set(range(first)):
        raise BadModelFile(path, f"has {first} tokens, whose ranks are not 0 to {first - 1}", hint=PUBLISHED)
    special = {names.get(at, f"<|reserved_token_{at}|>"): at for at in range(first, min(first + _KIMI_RESERVED, size))}
    return _of_ranks(ranks, special, pre, size, path)


def hunyuan(ranks: Ranks, pre: str, size: int, path: Path) -> Vocabulary:
    """The vocabulary of Hunyuan's hy.tiktoken, whose ranks are the order of the lines. Raises BadModelFile."""
    ordered = {token: rank for rank, token in enumerate(ranks)}
    names = (*_HUNYUAN, *(f"<|extra_{number}|>" for number in range(_HUNYUAN_EXTRA)))
    return _of_ranks(ordered, {name: len(ordered) + at for at, name in enumerate(names)}, pre, size, path)


def _of_ranks(ranks: Ranks, special: Mapping[str, int], pre: str, size: int, path: Path) -> Vocabulary:
    known: dict[int, tuple[str | bytes, int]] = {
        rank: (spelled_bytes(token), TokenType.NORMAL) for token, rank in ranks.items()
    }
    known |= {number: (text, TokenType.CONTROL) for text, number in special.items()}
    tokens, types = filled(known, size, path)
    pairs = (
        merged for token, rank in ranks.items() if len(token) > 1 and len(merged := _last(ranks, token, rank)) == 2
    )
    return Vocabulary("gpt2", tokens, types, pre=pre, merges=_spelled(pairs), added=special)


def _last(ranks: Ranks, token: bytes, rank: int) -> list[bytes]:
    """The parts of a token before its last merge: what BPE makes of it with the ranks below its own."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while True:
        lowest, place = rank, -1
        for at in range(len(parts) - 1):
            found = ranks.get(parts[at] + parts[at + 1])
            if found is not None and found < lowest:
                lowest, place = found, at
        if place < 0:
            return parts
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def tekken(described: Mapping[str, Any], size: int, path: Path) -> list[KeyValue]:
    """Metadata from `described`, the object of Mistral's tekken.json: vocabulary and special tokens.

    Raises BadModelFile."""
    config = described.get("config")
    config = config if isinstance(config, Mapping) else {}
    whole, count = config.get("default_vocab_size"), config.get("default_num_special_tokens")
    if type(whole) is not int or type(count) is not int or not 0 < count < whole <= size:
        raise BadModelFile(
            path,
            f"says {whole} tokens, {count} of them special, and config.json says vocab_size {size}",
            hint=PUBLISHED,
        )
    ranks = _tekken_ranks(listed(described, "vocab", path)[: whole - count], path)
    if len(ranks) != whole - count:
        raise BadModelFile(path, f"has {len(ranks)} tokens, but says {whole - count}", hint=PUBLISHED)
    named = described.get("special_tokens")
    special = _TEKKEN if named is None else [_special(each, path) for each in listed(described, "special_tokens", path)]
    special = [*special, *(f"<SPECIAL_{number}>" for number in range(len(special), count))]
    added = {text: number for number, text in enumerate(special)}
    if len(added) != count:
        raise BadModelFile(path, f"has {len(added)} different special tokens, but says {count}", hint=PUBLISHED)
    known: dict[int, tuple[str | bytes, int]] = {number: (text, TokenType.CONTROL) for text, number in added.items()}
    known |= {count + rank: (spelled_bytes(token), TokenType.NORMAL) for token, rank in ranks.items()}
    tokens, types = filled(known, size, path)
    vocabulary = Vocabulary(
        "gpt2", tokens, types, pre="tekken", scores=[0.0] * size, merges=_spelled(_all_pairs(ranks)), added=added
    )
    ids = {"BOS_ID": "<s>", "EOS_ID": "</s>", "UNK_ID": "<unk>", "PAD_ID": "<pad>"}
    numbers = [writer.u32(getattr(Keys.Tokenizer, key), added[text]) for key, text in ids.items() if text in added]
    flags = [writer.boolean(Keys.Tokenizer.ADD_BOS, True), writer.boolean(Keys.Tokenizer.ADD_EOS, False)]
    entries = vocabulary.entries()
    return [*entries[:2], *entries[5:], *numbers, *entries[2:5], *flags]  # the converter has the merges first


def _tekken_ranks(entries: Iterable[Any], path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for rank, each in enumerate(entries):
        raw = each.get("token_bytes") if isinstance(each, Mapping) and each.get("rank") == rank else None
        if not isinstance(raw, str) or not raw.isascii():
            raise BadModelFile(path, f"token {rank} has no bytes, or another rank", hint=PUBLISHED)
        ranks[_decoded(raw.encode(), path)] = rank
    _check_price(ranks, path)
    return ranks


def _special(each: Any, path: Path) -> str:
    text = each.get("token_str") if isinstance(each, Mapping) else None
    if not isinstance(text, str):
        raise BadModelFile(path, "a special token has no text", hint=PUBLISHED)
    return text


def _all_pairs(ranks: Ranks) -> Iterable[tuple[bytes, bytes]]:
    """All pairs of tokens that make a token, in the order of the ranks: of the token, then of its parts."""
    for token in ranks:
        pairs = [
            (ranks[token[:at]], ranks[token[at:]], token[:at], token[at:])
            for at in range(1, len(token))
            if token[:at] in ranks and token[at:] in ranks
        ]
        yield from ((left, right) for _, _, left, right in sorted(pairs))


def _spelled(pairs: Iterable[Iterable[bytes]]) -> tuple[bytes, ...]:
    return tuple(" ".join(map(spelled_bytes, pair)).encode() for pair in pairs)


def _decoded(text: bytes, path: Path) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadModelFile(path, "a token is not valid base64", hint=PUBLISHED) from None


def _check_price(ranks: Ranks, path: Path) -> None:
    """Raise BadModelFile for a vocabulary whose merges would take far longer to find than those of any model."""
    longest = max(map(len, ranks), default=0)
    if not longest or longest > _LONGEST or sum(len(token) ** 2 for token in ranks) > _MOST_WORK:
        raise BadModelFile(path, f"its tokens have up to {longest} bytes, and no vocabulary has tokens that long")
