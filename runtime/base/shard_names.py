"""Names of the parts of a split file, such as m-00002-of-00005.gguf. Pure.

The number of parts in a name is only a claim. The work here follows the names that are listed, never the claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from runtime.base.errors import VerificationFailed

# Six digits in the number of parts: DeepSeek-R1's original weights.
_SHARD = re.compile(r"-([0-9]{5})-of-([0-9]{5,6})\Z")
_NUMBER = re.compile(r"-[0-9]{5}-of-(?=[0-9]{5,6}\.\w+\Z)")
_RANGES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class MissingShards:
    """The missing parts of one split file: `like` is a part that is listed, `count` the number of parts that names
    claim, `gaps` the missing numbers as (first, last)."""

    like: str
    count: int
    gaps: tuple[tuple[int, int], ...]

    @property
    def number(self) -> int:
        """How many parts are missing."""
        return sum(last - first + 1 for first, last in self.gaps)

    @property
    def first(self) -> str:
        """The name of the first missing part."""
        return _NUMBER.sub(f"-{self.gaps[0][0]:05d}-of-", self.like)

    def __str__(self) -> str:
        """'m-00002-of-00005.gguf is missing', or '3 of 5 parts of m are missing: 2, 4 to 5'."""
        if self.number == 1:
            return f"{PurePosixPath(self.first).name} is missing"
        shown = [str(one) if one == other else f"{one} to {other}" for one, other in self.gaps[:_RANGES_SHOWN]]
        more = " and more" if len(self.gaps) > _RANGES_SHOWN else ""
        stem = PurePosixPath(shard_of(self.like)[0]).name
        return f"{self.number} of {self.count} parts of {stem} are missing: {', '.join(shown)}{more}"


def shard_of(path: str) -> tuple[str, int, int]:
    """(path without shard number and suffix, number, count); for a file that is not a shard: 1 of 1."""
    stem = path.removesuffix(_suffix(path))
    found = _SHARD.search(stem)
    return (stem[: found.start()], int(found[1]), int(found[2])) if found else (stem, 1, 1)


def missing_shards(files: Iterable[str]) -> tuple[MissingShards, ...]:
    """The split files that lack parts. Raises VerificationFailed if the numbers in the names contradict each other."""
    models: dict[tuple[str, int, str], dict[int, str]] = {}
    for path in files:
        stem, number, count = shard_of(path)
        models.setdefault((stem, count, _suffix(path)), {})[number] = path
    missing = []
    for (stem, count, _), here in sorted(models.items()):
        if not (min(here) >= 1 and max(here) <= count):
            raise VerificationFailed(f"the parts of {PurePosixPath(stem).name} disagree on their number")
        if gaps := _gaps(sorted(here), count):
            missing.append(MissingShards(next(iter(here.values())), count, gaps))
    return tuple(missing)


def is_whole(files: Iterable[str]) -> bool:
    """Whether split files have all their parts, and no part that contradicts the others."""
    try:
        return not missing_shards(files)
    except VerificationFailed:
        return False


def _gaps(numbers: Sequence[int], count: int) -> tuple[tuple[int, int], ...]:
    """The ranges from 1 to `count` that are not among the sorted `numbers`."""
    pairs = zip((0, *numbers), (*numbers, count + 1), strict=True)
    return tuple((before + 1, after - 1) for before, after in pairs if after - before > 1)


def check_shards(files: Iterable[str]) -> None:
    """Raises VerificationFailed when a split file lacks a part, or has one too many."""
    missing = missing_shards(files)
    if missing:
        one = missing[0]
        raise VerificationFailed(f"a part is missing: {one.first}" if one.number == 1 else str(one))


def _suffix(path: str) -> str:
    return next((path[-len(s) :] for s in (".gguf", ".safetensors") if path.lower().endswith(s)), "")
