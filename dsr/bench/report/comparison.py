"""What files of a family are compared by: of each file the row that was measured as those of the others were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dsr.bench.report.gather import File
from dsr.store.measurement import Figure, Kind, Measurement


@dataclass(frozen=True, slots=True)
class Fact:
    """A condition that two figures must share to be compared. A `minor` one is told only where it differs, one that is
    told `elsewhere` not here."""

    text: str
    minor: bool = False
    elsewhere: bool = False


Facts = tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Aspect:
    """A figure of a kind of bench. `rank` of a test: 0 for the usual one, None for another aspect's."""

    kind: Kind
    figure: str
    facts: Callable[[Measurement, Figure], Iterator[Fact]]
    rank: Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class Measured:
    file: File
    row: Measurement
    figure: Figure
    facts: Facts


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was `found` by the digests of files, and the facts that most of them have in `common`."""

    found: Mapping[str, Measured]
    common: Facts

    def told(self) -> tuple[str, ...]:
        return tuple(fact.text for fact in self.common if not fact.minor and not fact.elsewhere)

    def otherwise(self, digest: str) -> tuple[str, ...]:
        """What is not as with most others."""
        facts = self.found[digest].facts
        return tuple(fact.text for fact in facts if fact not in self.common and not fact.elsewhere)


def compare(files: Sequence[File], aspect: Aspect) -> Comparison:
    """Of each file the row whose facts most files have; else the usual one, else the latest."""
    offered = {file.digest: found for file in files if (found := _offered(file, aspect))}
    times = Counter(facts for found in offered.values() for facts in {each.facts for each in found})

    def usual(measured: Measured) -> int:
        return -(aspect.rank(measured.row.test) or 0)

    every = [each for found in offered.values() for each in found]
    if not every:
        return Comparison({}, ())
    number = {id(each): place for place, each in enumerate(every)}
    most = max(every, key=lambda each: (times[each.facts], usual(each), number[id(each)])).facts
    chosen = {
        digest: max(found, key=lambda each: (len({*each.facts} & {*most}), usual(each), number[id(each)]))
        for digest, found in offered.items()
    }
    having = Counter(fact for each in chosen.values() for fact in each.facts)
    order = dict.fromkeys(fact for each in chosen.values() for fact in each.facts)
    return Comparison(chosen, tuple(fact for fact in order if 2 * having[fact] > len(chosen)))


def _offered(file: File, aspect: Aspect) -> list[Measured]:
    return [
        Measured(file, row, figure, tuple(aspect.facts(row, figure)))
        for row in file.of(aspect.kind)
        if aspect.rank(row.test) is not None and (figure := row.figures.get(aspect.figure)) is not None
    ]
