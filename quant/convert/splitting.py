"""What a tokenizer.json does to a text before BPE: added tokens, normalizer, pre-tokenizer. And BPE itself, for a short
text. Semantics: huggingface/tokenizers, tokenizers/src/{normalizers,pre_tokenizers,models/bpe}.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from quant.convert.expression import Expression, NotUnderstood
from quant.convert.vocabulary import CHARACTER_OF

_MOST_STEPS = 20
_LONGEST_PIECE = 2000  # characters; the texts that are split have about 400
_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # ByteLevel's own expression
_WORDS = r"\w+|[^\w\s]+"  # Whitespace's
_PUNCTUATION = r"[\p{P}!-/:-@\[-`{-~]"

Split = Callable[[str], Iterator[str]]


class Splitter:
    """The steps of a tokenizer.json, of which `bytes` says whether they end in bytes. Raises NotUnderstood."""

    def __init__(self, normalizer: Any, pre_tokenizer: Any) -> None:
        self._normalize = [_normalizer(each) for each in _flat(normalizer, "normalizers")]
        steps = list(_flat(pre_tokenizer, "pretokenizers"))
        self.bytes = any(each.get("type") == "ByteLevel" for each in steps)
        self._splits = [_split(each) for each in steps]

    def pieces(self, text: str) -> tuple[str, ...]:
        """The pieces of a text, before they become bytes. Raises NotUnderstood where that is too costly."""
        for change in self._normalize:
            text = change(text)
        if len(text) > _LONGEST_PIECE:
            raise NotUnderstood
        pieces = [text]
        for split in self._splits:
            pieces = [part for piece in pieces for part in split(piece) if part]
        return tuple(pieces)


def encode(tokenizer: Mapping[str, Any], splitter: Splitter, text: str) -> list[int]:
    """The token numbers of a short text, without tokens that a post-processor adds. Raises NotUnderstood."""
    model = tokenizer["model"]
    vocabulary, added = model["vocab"], _added(tokenizer)
    ranks: dict[str, int] = {}
    merges = model.get("merges")
    for rank, merge in enumerate(merges if isinstance(merges, list) else ()):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise NotUnderstood
        ranks.setdefault(" ".join(pair), rank)
    numbers: list[int] = []
    for part, number in _by_added(text, added):
        if number is not None:
            numbers.append(number)
            continue
        for piece in splitter.pieces(part):
            spelled = (
                "".join(CHARACTER_OF[byte] for byte in piece.encode("utf-8", "replace")) if splitter.bytes else piece
            )
            numbers += _bpe(spelled, model, vocabulary, ranks)
    return numbers


def around(tokenizer: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """The tokens that the post-processor puts before and after a text. Raises NotUnderstood."""
    before: list[int] = []
    after: list[int] = []
    for each in _flat(tokenizer.get("post_processor"), "processors"):
        special, items = each.get("special_tokens"), each.get("single")
        if each.get("type") != "TemplateProcessing" or not isinstance(special, Mapping) or not isinstance(items, list):
            continue
        target = before
        for item in items:
            token = item.get("SpecialToken") if isinstance(item, Mapping) else None
            if not isinstance(token, Mapping):
                target = after
                continue
            entry = special.get(str(token.get("id")))
            numbers = entry.get("ids") if isinstance(entry, Mapping) else None
            target += numbers if isinstance(numbers, list) else []
    return before, after


def _flat(value: Any, key: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a sequence of sequences, in order."""
    waiting, count = [value], 0
    while waiting:
        each, count = waiting.pop(0), count + 1
        if count > _MOST_STEPS:
            raise NotUnderstood
        if each is None:
            continue
        if not isinstance(each, Mapping):
            raise NotUnderstood
        inner = each.get(key)
        if each.get("type") == "Sequence" and isinstance(inner, list):
            waiting = [*inner, *waiting]
        else:
            yield each


def _normalizer(step: Mapping[str, Any]) -> Callable[[str], str]:
    kind = step.get("type")
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return lambda text: unicodedata.normalize(kind, text)
    if kind == "Lowercase":
        return str.lower
    if kind == "Prepend" and isinstance(step.get("prepend"), str):
        return lambda text: step["prepend"] + text if text else text
    if kind == "Replace" and isinstance(step.get("content"), str):
        pattern = step.get("pattern")
        text = pattern.get("String") if isinstance(pattern, Mapping) else None
        if isinstance(text, str) and text:
            return lambda given: given.replace(text, step["content"])
    raise NotUnderstood


def _split(step: Mapping[str, Any]) -> Split:
    kind = step.get("type")
    if kind == "ByteLevel":
        if step.get("add_prefix_space"):
            raise NotUnderstood
        return _by(_GPT_2, "Isolated") if step.get("use_regex", True) else _whole
    if kind == "Digits":
        return _by(r"\p{N}" if step.get("individual_digits") else r"\p{N}+", "Isolated")
    if kind == "Punctuation":
        return _by(_PUNCTUATION, str(step.get("behavior", "Isolated")))
    if kind == "Whitespace":
        return _by(_WORDS, "Removed", inverted=True)
    if kind == "WhitespaceSplit":
        return _by(r"\s", "Removed")
    if kind == "Split":
        pattern = step.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, Mapping) else None
        text = pattern.get("String") if isinstance(pattern, Mapping) else None
        if isinstance(text, str) and text:
            expression = "".join(f"\\{each}" if not each.isalnum() and each.isascii() else each for each in text)
        if isinstance(expression, str):
            return _by(expression, str(step.get("behavior")), inverted=bool(step.get("invert")))
    raise NotUnderstood


def _whole(text: str) -> Iterator[str]:
    yield text


def _by(source: str, behavior: str, *, inverted: bool = False) -> Split:
    expression = Expression(source)
    if behavior not in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        raise NotUnderstood

    def split(text: str) -> Iterator[str]:
        parts = [(part, found != inverted) for part, found in _matches(expression, text)]
        if behavior == "Isolated":
            yield from (part for part, _ in parts)
        elif behavior == "Removed":
            yield from (part for part, found in parts if not found)
        elif behavior == "Contiguous":
            yield from _joined(parts, lambda before, now: before == now)
        elif behavior == "MergedWithPrevious":
            yield from _joined(parts, lambda before, now: now and not before)
        else:
            yield from _joined(parts, lambda before, now: before and not now)

    return split


def _matches(expression: Expression, text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a text, and whether each is a match."""
    at = 0
    for begin, end in expression.spans(text):
        if begin > at:
            yield text[at:begin], False
        yield text[begin:end], True
        at = end
    if at < len(text):
        yield text[at:], False


def _joined(parts: list[tuple[str, bool]], together: Callable[[bool, bool], bool]) -> Iterator[str]:
    whole, before = "", None
    for part, found in parts:
        if before is not None and together(before, found):
            whole += part
        else:
            if whole:
                yield whole
            whole = part
        before = found
    if whole:
        yield whole


def _added(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    listed = tokenizer.get("added_tokens")
    found = (each for each in listed if isinstance(each, Mapping)) if isinstance(listed, list) else ()
    return {
        each["content"]: each["id"]
        for each in found
        if isinstance(each.get("content"), str) and each["content"] and type(each.get("id")) is int
    }


def _by_added(text: str, added: Mapping[str, int]) -> Iterator[tuple[str, int | None]]:
    """A text cut at added tokens: the leftmost, and of those the longest."""
    known = sorted((each for each in added if each in text), key=len, reverse=True)
    at = begin = 0
    while at < len(text):
        token = next((each for each in known if text.startswith(each, at)), None)
        if token is None:
            at += 1
            continue
        if at > begin:
            yield text[begin:at], None
        yield token, added[token]
        at = begin = at + len(token)
    if begin < len(text):
        yield text[begin:], None


def _bpe(piece: str, model: Mapping[str, Any], vocabulary: Mapping[str, int], ranks: Mapping[str, int]) -> list[int]:
    if model.get("ignore_merges") and piece in vocabulary:
        return [vocabulary[piece]]
    parts = list(piece)
    while len(parts) > 1:
        pairs = [(ranks.get(f"{left} {right}", -1), at) for at, (left, right) in enumerate(pairwise(parts))]
        rank, at = min((each for each in pairs if each[0] >= 0), default=(-1, 0))
        if rank < 0:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    numbers: list[int] = []
    for part in parts:
        if part in vocabulary:
            numbers.append(vocabulary[part])
        elif model.get("byte_fallback"):
            numbers += [vocabulary.get(f"<0x{byte:02X}>", -1) for byte in part.encode("utf-8", "replace")]
        else:
            raise NotUnderstood
    return numbers
