"""The parts of a model's name: words, numbers, and sizes such as 8b, a3b or e4b."""

from __future__ import annotations

import re

_LONGEST = 200
_SIZE = re.compile(r"[ae]?(\d+(?:\.\d+)?)([mbt])")
_UNITS = {"m": 1e6, "b": 1e9, "t": 1e12}


def parts(name: str) -> frozenset[str]:
    """'llama3.2:1b' -> llama, 3.2, 1b; 'granite-4.0-h-tiny' -> granite, 4, h, tiny. Case and order do not matter."""
    found: list[str] = []
    for piece in re.split(r"[^a-z0-9.]+", name.casefold()[:_LONGEST]):
        found += [piece] if _SIZE.fullmatch(piece) else re.findall(r"[a-z]+|\d+(?:\.\d+)?", piece)
    return frozenset(part.removesuffix(".0") for part in found)


def size_of(part: str) -> float | None:
    """How many parameters a part tells: '7b' -> 7e9; None if it is no size."""
    found = _SIZE.fullmatch(part)
    return float(found[1]) * _UNITS[found[2]] if found else None
