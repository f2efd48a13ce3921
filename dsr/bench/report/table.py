"""The tables of a report: a row for each file of a family, a column for each metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dsr.bench.report import metrics
from dsr.bench.report.families import Family, Member
from dsr.bench.report.figures import divergence, rounded, share, speed
from dsr.bench.report.files import MeasuredFile
from dsr.bench.report.metrics import Metric, MetricComparison, compare
from dsr.store.measurement import Figure
from runtime.base.types import ByteCount, counted

DOUBTFUL = "†"
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """`otherwise`: how the conditions of the cell differ from those of the table. `doubtful`: a speed that other work
    disturbed."""

    text: str = NOTHING
    otherwise: str = ""
    doubtful: bool = False

    @property
    def marked(self) -> str:
        return f"{self.text} {DOUBTFUL}" if self.doubtful else self.text


@dataclass(frozen=True, slots=True)
class FamilyColumn:
    title: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class FamilyTable:
    """`conditions` are those of all cells without `otherwise`. Columns without a figure are left out."""

    heading: str
    conditions: str
    members: tuple[Member, ...]
    columns: tuple[FamilyColumn, ...]

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """(letter, text) for each text that is `otherwise` in some cell."""
        found = dict.fromkeys(cell.otherwise for column in self.columns for cell in column.cells if cell.otherwise)
        return tuple((_letters(number), text) for number, text in enumerate(found))

    def note(self, cell: Cell) -> str:
        return next((letter for letter, text in self.notes if text == cell.otherwise), "")


_FIGURES: tuple[tuple[str, Metric, Callable[[Figure], str]], ...] = (
    ("KLD", metrics.DIVERGENCE, divergence),
    ("same top token", metrics.AGREEMENT, lambda figure: f"{100 * figure.mean:.2f} %"),
    ("perplexity", metrics.PERPLEXITY, lambda figure: rounded(figure, 4)),
    ("right", metrics.ACCURACY, share),
    ("prompt tokens/s", metrics.PROMPT_SPEED, speed),
    ("tokens/s", metrics.SPEED, speed),
    ("memory", metrics.MEMORY, lambda figure: str(ByteCount(figure.mean))),
)
# Columns whose conditions are shown together, and the name of each group in that sentence.
_CONDITION_GROUPS = (
    ("loss", ("KLD", "same top token", "perplexity")),
    ("right", ("right",)),
    ("speeds", ("prompt tokens/s", "tokens/s")),
    ("memory", ("memory",)),
)


def tables(families: Sequence[Family]) -> tuple[FamilyTable, ...]:
    """A table for each family, and one for all files without a family."""
    several = [family for family in families if len(family.members) > 1]
    alone = tuple(member for family in families if len(family.members) == 1 for member in family.members)
    made = [_table(family.name, family.members) for family in several]
    heading = alone[0].short if len(alone) == 1 else "Other files" if several else "The files"
    return (*made, *([_table(heading, alone)] if alone else []))


def _table(heading: str, members: tuple[Member, ...]) -> FamilyTable:
    files = [member.file for member in members]
    found = {title: compare(files, metric) for title, metric, _ in _FIGURES}
    made = (
        FamilyColumn("size", tuple(Cell(str(ByteCount(file.size))) for file in files)),
        FamilyColumn("bits per weight", tuple(_bits(file) for file in files)),
        *(FamilyColumn(title, tuple(_cell(found[title], file, text) for file in files)) for title, _, text in _FIGURES),
    )
    columns = [column for column in made if any(cell.text != NOTHING for cell in column.cells)]
    threads = [_threads(file, found) for file in files]
    numbers = sorted({number for number in threads if number})
    if len(numbers) > 1:
        last = max(place for place, column in enumerate(columns) if column.title.endswith("tokens/s"))
        cells = tuple(Cell(str(number)) if number else Cell() for number in threads)
        columns.insert(last + 1, FamilyColumn("threads", cells))
    alike = counted(numbers[0], "thread") if len(numbers) == 1 else ""
    return FamilyTable(heading, _conditions(found, alike), members, tuple(columns))


def _threads(file: MeasuredFile, found: Mapping[str, MetricComparison]) -> int:
    """The number of threads of its speeds, of token generation if they differ; 0 if unknown."""
    for title in ("tokens/s", "prompt tokens/s"):
        if (measured := found[title].found.get(file.digest)) is not None:
            threads = measured.row.parameters.get("threads")
            return threads if isinstance(threads, int) else 0
    return 0


def _bits(file: MeasuredFile) -> Cell:
    """Bits per weight, as the quality bench counted them."""
    for row in reversed(file.rows):
        if (figure := row.figures.get("bpw")) is not None:
            return Cell(f"{figure.mean:.2f}")
    return Cell()


def _cell(comparison: MetricComparison, file: MeasuredFile, text: Callable[[Figure], str]) -> Cell:
    measured = comparison.found.get(file.digest)
    if measured is None:
        return Cell()
    doubtful = measured.row.kind == "speed" and "tokens_per_second" in measured.row.figures
    return Cell(
        text(measured.figure),
        ", ".join(comparison.otherwise(file.digest)),
        doubtful and bool(measured.row.conditions.disturbed),
    )


def _conditions(found: Mapping[str, MetricComparison], threads: str) -> str:
    """'Loss: against f16, 2040 tokens of the built-in text; right: greedy, 50 questions of nano; ...'"""
    parts = []
    for name, titles in _CONDITION_GROUPS:
        each = [found[title].shared() for title in titles]
        # The first fact is the name of a test, which differs between the columns.
        facts = dict.fromkeys([*(facts[0] for facts in each if facts), *(fact for facts in each for fact in facts)])
        if name == "speeds" and threads:
            facts[threads] = None
        parts += [f"{name}: {', '.join(facts)}"] if facts else []
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def _letters(number: int) -> str:
    """'a', ..., 'z', 'aa'."""
    return ("" if number < 26 else _letters(number // 26 - 1)) + chr(ord("a") + number % 26)
