"""A row for each file of a family: what it weighs, what it lost, how often it is right, how fast it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dsr.bench.report import aspects
from dsr.bench.report.comparison import Aspect, Comparison, compare
from dsr.bench.report.families import Family, Member
from dsr.bench.report.figures import divergence, rounded, share, speed
from dsr.bench.report.gather import File
from dsr.store.measurement import Figure
from runtime.base.types import ByteCount
from runtime.base.words import counted

DOUBTFUL = "†"
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """`otherwise`: how its conditions differ from those that the table tells of; `doubtful`: a speed that was
    disturbed while it was measured."""

    text: str = NOTHING
    otherwise: str = ""
    doubtful: bool = False

    @property
    def marked(self) -> str:
        return f"{self.text} {DOUBTFUL}" if self.doubtful else self.text


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """`conditions` hold for all cells but those that tell their own. Only columns in which something was measured."""

    heading: str
    conditions: str
    members: tuple[Member, ...]
    columns: tuple[Column, ...]

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """A letter for each thing that is otherwise in some cell."""
        found = dict.fromkeys(cell.otherwise for column in self.columns for cell in column.cells if cell.otherwise)
        return tuple((_letters(number), text) for number, text in enumerate(found))

    def note(self, cell: Cell) -> str:
        return next((letter for letter, text in self.notes if text == cell.otherwise), "")


_FIGURES: tuple[tuple[str, Aspect, Callable[[Figure], str]], ...] = (
    ("KLD", aspects.DIVERGENCE, divergence),
    ("same top token", aspects.AGREEMENT, lambda figure: f"{100 * figure.mean:.2f} %"),
    ("perplexity", aspects.PERPLEXITY, lambda figure: rounded(figure, 4)),
    ("right", aspects.ACCURACY, share),
    ("prompt tokens/s", aspects.PROMPT_SPEED, speed),
    ("tokens/s", aspects.SPEED, speed),
    ("memory", aspects.MEMORY, lambda figure: str(ByteCount(figure.mean))),
)
# What the conditions of columns are called in a sentence.
_CALLED = (
    ("loss", ("KLD", "same top token", "perplexity")),
    ("right", ("right",)),
    ("speeds", ("prompt tokens/s", "tokens/s")),
    ("memory", ("memory",)),
)


def tables(families: Sequence[Family]) -> tuple[Table, ...]:
    """One for each family, and one for all files that are alone."""
    several = [family for family in families if len(family.members) > 1]
    alone = tuple(member for family in families if len(family.members) == 1 for member in family.members)
    made = [_table(family.name, family.members) for family in several]
    heading = alone[0].short if len(alone) == 1 else "Other files" if several else "The files"
    return (*made, *([_table(heading, alone)] if alone else []))


def _table(heading: str, members: tuple[Member, ...]) -> Table:
    files = [member.file for member in members]
    found = {title: compare(files, aspect) for title, aspect, _ in _FIGURES}
    made = (
        Column("size", tuple(Cell(str(ByteCount(file.size))) for file in files)),
        Column("bits per weight", tuple(_bits(file) for file in files)),
        *(Column(title, tuple(_cell(found[title], file, text) for file in files)) for title, _, text in _FIGURES),
    )
    columns = [column for column in made if any(cell.text != NOTHING for cell in column.cells)]
    threads = [_threads(file, found) for file in files]
    numbers = sorted({number for number in threads if number})
    if len(numbers) > 1:
        last = max(place for place, column in enumerate(columns) if column.title.endswith("tokens/s"))
        told = tuple(Cell(str(number)) if number else Cell() for number in threads)
        columns.insert(last + 1, Column("threads", told))
    alike = counted(numbers[0], "thread") if len(numbers) == 1 else ""
    return Table(heading, _conditions(found, alike), members, tuple(columns))


def _threads(file: File, found: Mapping[str, Comparison]) -> int:
    """Of its speeds, the latter where they differ; 0 where nobody knows."""
    for title in ("tokens/s", "prompt tokens/s"):
        if (measured := found[title].found.get(file.digest)) is not None:
            threads = measured.row.parameters.get("threads")
            return threads if isinstance(threads, int) else 0
    return 0


def _bits(file: File) -> Cell:
    """As the quality bench counted its weights."""
    for row in reversed(file.rows):
        if (figure := row.figures.get("bpw")) is not None:
            return Cell(f"{figure.mean:.2f}")
    return Cell()


def _cell(comparison: Comparison, file: File, text: Callable[[Figure], str]) -> Cell:
    measured = comparison.found.get(file.digest)
    if measured is None:
        return Cell()
    doubtful = measured.row.kind == "speed" and "tokens_per_second" in measured.row.figures
    return Cell(
        text(measured.figure),
        ", ".join(comparison.otherwise(file.digest)),
        doubtful and bool(measured.row.conditions.disturbed),
    )


def _conditions(found: Mapping[str, Comparison], threads: str) -> str:
    """'Loss: against f16, 2040 tokens of the built-in text; right: greedy, 50 questions of nano; ...'"""
    told = []
    for name, titles in _CALLED:
        each = [found[title].told() for title in titles]
        # What comes first is what differs between the columns, the names of tests.
        facts = dict.fromkeys([*(facts[0] for facts in each if facts), *(fact for facts in each for fact in facts)])
        if name == "speeds" and threads:
            facts[threads] = None
        told += [f"{name}: {', '.join(facts)}"] if facts else []
    sentence = "; ".join(told)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def _letters(number: int) -> str:
    """'a', ..., 'z', 'aa'."""
    return ("" if number < 26 else _letters(number // 26 - 1)) + chr(ord("a") + number % 26)
