"""Families: the files that were measured against the same reference, and that reference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from dsr.bench.report.files import MeasuredFile
from dsr.models.gguf_names import quant_of
from dsr.store.measurement import short_name

_BETWEEN = "-_. "  # characters between the parts of a name


@dataclass(frozen=True, slots=True)
class Member:
    """`short` is the name of a file inside its family."""

    file: MeasuredFile
    short: str
    reference: bool


@dataclass(frozen=True, slots=True)
class Family:
    """The members: the reference first if it was measured, then the largest file. A family can be one file."""

    name: str
    members: tuple[Member, ...]

    @property
    def files(self) -> tuple[MeasuredFile, ...]:
        return tuple(member.file for member in self.members)


def families(files: Sequence[MeasuredFile]) -> tuple[Family, ...]:
    """The families in the order of their first files; families of one file come last."""
    references = {against for file in files if (against := _reference_of(file))}
    found: dict[str, list[MeasuredFile]] = {}
    for file in files:
        # A reference belongs to the files measured against it, even if it was measured against another file.
        own = next((key for key in (file.digest, file.name) if key in references), None)
        found.setdefault(own or _reference_of(file) or file.digest, []).append(file)
    made = [_family(key, group) for key, group in found.items()]
    return tuple(_with_unique_names(sorted(made, key=lambda family: len(family.members) == 1)))


def _reference_of(file: MeasuredFile) -> str:
    """The digest of the file it was last measured against; the name if the row has no digest."""
    for row in reversed(file.of("quality")):
        found = row.parameters.get("against_digest") or short_name(str(row.parameters.get("against") or ""))
        if found:
            return str(found)
    return ""


def _family(key: str, files: Sequence[MeasuredFile]) -> Family:
    ordered = sorted(files, key=lambda file: key not in (file.digest, file.name))
    if len(files) == 1:
        return Family(files[0].name, (Member(files[0], files[0].name, False),))
    reference = ordered[0] if key in (ordered[0].digest, ordered[0].name) else None
    stem = reduce(_beginning, [_stem(file.name) for file in files])
    members = [Member(file, _short(file, reference, stem), file is reference) for file in ordered]
    taken = [member.short for member in members if not member.reference]
    return Family(
        stem or (reference.name if reference else _reference_name(files[0])),
        tuple(
            Member(member.file, member.file.name, member.reference) if taken.count(member.short) > 1 else member
            for member in members
        ),
    )


def _reference_name(file: MeasuredFile) -> str:
    row = file.of("quality")[-1]
    return short_name(str(row.parameters.get("against") or "?"))


def _stem(name: str) -> str:
    """The name without the quantization at its end."""
    quant = quant_of(name)
    cut = name.upper().rfind(quant) if quant else -1
    return name[:cut].rstrip(_BETWEEN) if quant and cut + len(quant) == len(name) else name


def _beginning(one: str, other: str) -> str:
    """The parts that both names begin with: 'a-b' for 'a-b-c' and 'a-b-d', '' for 'a-bc' and 'b'."""
    ones, others = (re.findall(f"[{_BETWEEN}]*[^{_BETWEEN}]+", each) for each in (one, other))
    same = 0
    while same < min(len(ones), len(others)) and ones[same] == others[same]:
        same += 1
    return "".join(ones[:same])


def _short(file: MeasuredFile, reference: MeasuredFile | None, stem: str) -> str:
    """The end of a name: without the reference's name, else without the part that all names share."""
    for begin in ([reference.name] if reference and file is not reference else []) + [stem]:
        rest = file.name[len(begin) :]
        if begin and file.name.startswith(begin) and rest[:1] in tuple(_BETWEEN) and rest.strip(_BETWEEN):
            short = rest.strip(_BETWEEN)
            return short.upper() if quant_of(short) == short.upper() else short
    return file.name


def _with_unique_names(found: Sequence[Family]) -> list[Family]:
    """Families whose name is taken get the name of their first file; if that is taken, with its digest."""
    for called in (lambda file: file.name, lambda file: f"{file.name} ({file.digest[:6]})"):
        names = Counter(family.name for family in found)
        found = [
            Family(called(family.files[0]), family.members) if names[family.name] > 1 else family for family in found
        ]
    return list(found)
