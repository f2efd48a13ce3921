"""Families of files: those that were measured against the same file, and that one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from dsr.bench.report.gather import File
from dsr.models.gguf_names import quant_of
from dsr.store.measurement import short_name

_BETWEEN = "-_. "  # what stands between the parts of a name


@dataclass(frozen=True, slots=True)
class Member:
    """`short` tells a file from the others of its family."""

    file: File
    short: str
    reference: bool


@dataclass(frozen=True, slots=True)
class Family:
    """The reference first where it is a member, then the largest; a file alone is a family too."""

    name: str
    members: tuple[Member, ...]

    @property
    def files(self) -> tuple[File, ...]:
        return tuple(member.file for member in self.members)


def families(files: Sequence[File]) -> tuple[Family, ...]:
    """In the order of their first files; those of several files come before files alone."""
    references = {against for file in files if (against := _against(file))}
    found: dict[str, list[File]] = {}
    for file in files:
        # A reference is with those measured against it, even where it was measured against another.
        own = next((key for key in (file.digest, file.name) if key in references), None)
        found.setdefault(own or _against(file) or file.digest, []).append(file)
    made = [_family(key, group) for key, group in found.items()]
    return tuple(_told_apart(sorted(made, key=lambda family: len(family.members) == 1)))


def _against(file: File) -> str:
    """The digest of what it was last measured against, or the name where the row has no digest."""
    for row in reversed(file.of("quality")):
        found = row.parameters.get("against_digest") or short_name(str(row.parameters.get("against") or ""))
        if found:
            return str(found)
    return ""


def _family(key: str, files: Sequence[File]) -> Family:
    ordered = sorted(files, key=lambda file: key not in (file.digest, file.name))
    if len(files) == 1:
        return Family(files[0].name, (Member(files[0], files[0].name, False),))
    reference = ordered[0] if key in (ordered[0].digest, ordered[0].name) else None
    stem = reduce(_beginning, [_stem(file.name) for file in files])
    members = [Member(file, _short(file, reference, stem), file is reference) for file in ordered]
    taken = [member.short for member in members if not member.reference]
    return Family(
        stem or (reference.name if reference else _told_reference(files[0])),
        tuple(
            Member(member.file, member.file.name, member.reference) if taken.count(member.short) > 1 else member
            for member in members
        ),
    )


def _told_reference(file: File) -> str:
    row = file.of("quality")[-1]
    return short_name(str(row.parameters.get("against") or "?"))


def _stem(name: str) -> str:
    """Without the quantization at its end."""
    quant = quant_of(name)
    cut = name.upper().rfind(quant) if quant else -1
    return name[:cut].rstrip(_BETWEEN) if quant and cut + len(quant) == len(name) else name


def _beginning(one: str, other: str) -> str:
    """What both begin with, of whole parts: 'a-b' of 'a-b-c' and 'a-b-d', '' of 'a-bc' and 'b'."""
    ones, others = (re.findall(f"[{_BETWEEN}]*[^{_BETWEEN}]+", each) for each in (one, other))
    same = 0
    while same < min(len(ones), len(others)) and ones[same] == others[same]:
        same += 1
    return "".join(ones[:same])


def _short(file: File, reference: File | None, stem: str) -> str:
    """What stands behind the reference's name, or behind what all have in common."""
    for begin in ([reference.name] if reference and file is not reference else []) + [stem]:
        rest = file.name[len(begin) :]
        if begin and file.name.startswith(begin) and rest[:1] in tuple(_BETWEEN) and rest.strip(_BETWEEN):
            told = rest.strip(_BETWEEN)
            return told.upper() if quant_of(told) == told.upper() else told
    return file.name


def _told_apart(found: Sequence[Family]) -> list[Family]:
    """A family whose name another has is called as its first file; where that is not enough, with its digest."""
    for called in (lambda file: file.name, lambda file: f"{file.name} ({file.digest[:6]})"):
        names = Counter(family.name for family in found)
        found = [
            Family(called(family.files[0]), family.members) if names[family.name] > 1 else family for family in found
        ]
    return list(found)
