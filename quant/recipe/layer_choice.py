"""The layers of a recipe's rule, written in words: `first 2 moe`, `every 5th`, `last eighth`, `more bits`, `3-8`.

Words count within all layers, or within those with routed experts (`first 2 moe`) or without (`dense`); numbers and
ranges are the layers' own, from 0. Several are joined by commas.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from quant.recipe.mixtures import more_bits

_SHARES = {"half": 2, "third": 3, "quarter": 4, "eighth": 8, "sixteenth": 16}
_TERM = re.compile(
    rf"(?P<end>first|last) (?:(?P<count>[1-9]\d{{0,3}})|(?P<share>{'|'.join(_SHARES)}))"
    r"|every (?P<step>[1-9]\d{0,3})(?:st|nd|rd|th)"
    r"|(?P<more>more bits)"
    r"|(?P<low>\d{1,4})(?:-(?P<high>\d{1,4}))?"
)
SPELLINGS = "'first 2', 'last eighth', 'every 5th', 'more bits', 'moe', 'dense', '7' and '3-8', joined by commas"


def understood(words: str) -> bool:
    """Whether `chosen` can read this."""
    return all(_split(term) is not None for term in words.split(","))


def chosen(words: str, layers: int, moe: Collection[int]) -> frozenset[int]:
    """The layers, of a model with so many, that are meant; `moe` are those with routed experts. `words` are understood.

    `more bits` is llama.cpp's choice: the first and the last eighth, and every third in between.
    """
    return frozenset(layer for term in words.split(",") for layer in _of_term(term, layers, moe))


def _split(term: str) -> tuple[re.Match[str] | None, str] | None:
    """What a term says and of which layers; None when it says nothing known."""
    text, kind = " ".join(term.split()), ""
    for word in ("moe", "dense"):
        if text == word:
            return None, word
        if text.endswith(f" {word}"):
            text, kind = text.removesuffix(f" {word}"), word
    found = _TERM.fullmatch(text)
    return (found, kind) if found else None


def _of_term(term: str, layers: int, moe: Collection[int]) -> list[int]:
    split = _split(term)
    assert split is not None  # checked when the recipe was read
    found, kind = split
    pool = [layer for layer in range(layers) if not kind or (layer in moe) == (kind == "moe")]
    if found is None:
        return pool
    if found["low"]:
        low = int(found["low"])
        return [layer for layer in pool if low <= layer <= int(found["high"] or low)]
    if found["more"]:
        return [layer for place, layer in enumerate(pool) if more_bits(place, len(pool))]
    if found["step"]:
        return pool[:: int(found["step"])]
    if found["share"]:
        share = _SHARES[found["share"]]
        return pool[: len(pool) // share] if found["end"] == "first" else pool[len(pool) * (share - 1) // share :]
    count = int(found["count"])
    return pool[:count] if found["end"] == "first" else pool[-count:]
