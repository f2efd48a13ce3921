"""The layers of a recipe's rule, in words: `first 2 moe`, `every 5th`, `last eighth`, `more bits`, `3-8`.

Words count all layers, or only layers with routed experts (`first 2 moe`) or without (`first 2 dense`). Numbers and
ranges are layer numbers, from 0. Commas join several terms.
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


def is_layer_choice(words: str) -> bool:
    """Whether `words` select layers."""
    return all(_split(term) is not None for term in words.split(","))


def select_layers(words: str, layers: int, moe: Collection[int]) -> frozenset[int]:
    """Returns the layers that `words` select. `layers` is the number of layers, `moe` are those with routed experts.

    `more bits` is llama.cpp's choice: the first and the last eighth, and every third in between. `words` must be valid.
    """
    return frozenset(layer for term in words.split(",") for layer in _of_term(term, layers, moe))


def _split(term: str) -> tuple[re.Match[str] | None, str] | None:
    """Returns a term as its match and its kind of layer ("moe", "dense" or ""); None if it is not valid."""
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
