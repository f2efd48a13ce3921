"""Reads a model's name as other programs spell it: `llama3.2:1b`, `phi4`, `gemma3:4b-it-q4_K_M`, `qwen3:30b`.

Two names mean one model if they have the same parts in any order: `phi4-reasoning:plus` is phi-4-reasoning-plus. A part
is a word, a number, or a size such as 8b, a3b or e4b; what stands between the parts does not matter. A name may lack
sizes (`qwen3:30b` for qwen3:30b-a3b) and the date of a release (`qwen3:4b-thinking` for qwen3:4b-thinking-2507). It may
have a size that the catalogue's name lacks, if the model has about so many parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from dsr.models.catalog import CatalogEntry
from dsr.models.gguf_names import is_quant, normal_quant
from dsr.models.name_parts import parts, size_of

_DATE = re.compile(r"\d{4}")
_CLOSE = 1.1  # 3.8b and 4b are one size; 7b and 8b are not


@dataclass(frozen=True, slots=True)
class Spelled:
    """The models that a name means, several if it lacks their size, and the quantization that it ends with."""

    entries: tuple[CatalogEntry, ...]
    quant: str | None


def spelled(name: str, entries: Iterable[CatalogEntry]) -> Spelled:
    """The models of `entries` that `name` means; none if it has a part that no name of theirs has."""
    bare, quant = _without_quant(name.casefold().removesuffix(":latest"))
    wanted = parts(bare)
    ranked = [(rank, entry) for entry in entries if (rank := _rank(wanted, entry)) is not None]
    best = min((rank for rank, _ in ranked), default=0)
    return Spelled(tuple(entry for rank, entry in ranked if rank == best), quant)


def _rank(wanted: frozenset[str], entry: CatalogEntry) -> int | None:
    """How well the wanted parts are those of the model, 0 the best; None if they are not."""
    ranks = [rank for known in _known_parts(entry) if (rank := _likeness(wanted, known, entry)) is not None]
    return min(ranks, default=None)


def _likeness(wanted: frozenset[str], known: frozenset[str], entry: CatalogEntry) -> int | None:
    missing, more = known - wanted, wanted - known
    if not more and all(size_of(part) for part in missing):
        return 1 if missing else 0
    if not missing and not any(map(size_of, known)) and all(_tells_size(part, entry) for part in more):
        return 1
    if not more and all(_DATE.fullmatch(part) or size_of(part) for part in missing):
        return 2
    return None


def _tells_size(part: str, entry: CatalogEntry) -> bool:
    ratio = (size_of(part) or 0) / entry.parameters
    return 1 / _CLOSE <= ratio <= _CLOSE


def _without_quant(name: str) -> tuple[str, str | None]:
    """'gemma3:4b-it-q4_k_m' -> ('gemma3:4b-it', 'Q4_K_M'); a quantization stands behind the tag."""
    for found in re.finditer(r"[-:@]", name):
        behind_tag = found[0] != "-" or ":" in name[: found.start()]
        if behind_tag and is_quant(name[found.end() :]):
            return name[: found.start()], normal_quant(name[found.end() :])
    return name, None


@cache
def _known_parts(entry: CatalogEntry) -> tuple[frozenset[str], ...]:
    return tuple(parts(name) for name in (*entry.names, entry.model))
