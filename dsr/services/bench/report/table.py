"""One row for each file: what it weighs, what it lost, how often it is right, how fast it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dsr.records import Figure, Row
from dsr.services.bench.report.gathering import File, figure_of, preferred, share_interval, short_name
from runtime.types import ByteCount

DOUBTFUL = "†"
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """`about` is what else must be the same for two cells to be compared; `doubtful`: a speed that was
    disturbed while it was measured."""

    text: str = NOTHING
    about: str = ""
    doubtful: bool = False

    @property
    def marked(self) -> str:
        return f"{self.text} {DOUBTFUL}" if self.doubtful else self.text


@dataclass(frozen=True, slots=True)
class Column:
    """`about` is what its cells have in common; where they have not, each tells its own."""

    title: str
    cells: tuple[Cell, ...]
    about: str = ""


def columns(files: Sequence[File]) -> tuple[Column, ...]:
    """Those in which something was measured; the first names the files."""
    made = (
        ("file", _file),
        ("size", lambda file: Cell(str(ByteCount(file.size)))),
        ("bits per weight", _bits),
        ("KLD", _divergence),
        ("same top token", _agreement),
        ("perplexity", _perplexity),
        ("right", _accuracy),
        ("prompt tokens/s", lambda file: _speed(file, "pp")),
        ("tokens/s", lambda file: _speed(file, "tg")),
        ("memory", _memory),
    )
    every = (_column(title, [cell(file) for file in files]) for title, cell in made)
    return tuple(_said_once([column for column in every if any(cell.text != NOTHING for cell in column.cells)]))


def _said_once(found: Sequence[Column]) -> Iterator[Column]:
    """What a column says of all its cells is not repeated beside it."""
    for before, column in zip([None, *found], found, strict=False):
        yield replace(column, about="") if before and before.about == column.about else column


def _column(title: str, cells: Sequence[Cell]) -> Column:
    """What all have in common goes to the head of the column."""
    abouts = {cell.about for cell in cells if cell.text != NOTHING}
    if len(abouts) != 1:
        return Column(title, tuple(cells))
    return Column(title, tuple(Cell(cell.text, "", cell.doubtful) for cell in cells), abouts.pop())


def plus_minus(figure: Figure, digits: int) -> str:
    """'0.0123 ± 0.0004', the standard error after the sign."""
    error = "" if figure.error is None else f" ± {figure.error:.{digits}f}"
    return f"{figure.mean:.{digits}f}{error}"


def rounded(figure: Figure, digits: int) -> str:
    """So many significant digits of the mean, and as many places of the error."""
    whole = len(f"{abs(figure.mean):.0f}")
    return plus_minus(figure, max(digits - whole, 0))


def speed(figure: Figure) -> str:
    return rounded(figure, 3)


def share(figure: Figure) -> str:
    """'85.0 % (64 to 95)'."""
    low, high = share_interval(figure)
    return f"{100 * figure.mean:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def conditions_of_quality(row: Row) -> str:
    """'against nano-f16, on builtin'."""
    against, text = row.parameters.get("against"), row.parameters.get("text")
    told = [f"against {short_name(str(against))}"] if against else []
    return ", ".join([*told, *([f"on {short_name(str(text))}"] if text else [])])


def conditions_of_reason(row: Row) -> str:
    """'greedy, nano'."""
    suite = row.parameters.get("suite")
    return f"{row.test}, {short_name(str(suite))}" if suite else row.test


def _file(file: File) -> Cell:
    return Cell(file.name)


def _bits(file: File) -> Cell:
    """As the quality bench counted its weights."""
    for row in reversed(file.rows):
        if (figure := row.figures.get("bpw")) is not None:
            return Cell(f"{figure.mean:.2f}")
    return Cell()


def _quality(file: File, name: str) -> tuple[Row | None, Figure | None]:
    row = preferred(file.of("quality"), lambda each: name in each.figures)
    return row, figure_of(row, name)


def _of_quality(file: File, name: str, text: Callable[[Figure], str]) -> Cell:
    row, figure = _quality(file, name)
    if row is None or figure is None:
        return Cell()
    return Cell(text(figure), conditions_of_quality(row))


def _divergence(file: File) -> Cell:
    return _of_quality(file, "kld_mean", lambda figure: plus_minus(figure, 5 if abs(figure.mean) < 0.01 else 4))


def _agreement(file: File) -> Cell:
    return _of_quality(file, "top1_agreement", lambda figure: f"{100 * figure.mean:.2f} %")


def _perplexity(file: File) -> Cell:
    return _of_quality(file, "ppl", lambda figure: rounded(figure, 4))


def _accuracy(file: File) -> Cell:
    row = preferred(
        [row for row in file.of("reason") if "accuracy" in row.figures],
        lambda row: row.test.startswith("greedy"),
        lambda row: row.test.startswith("direct"),
        lambda row: "oracle" not in row.test,
    )
    figure = figure_of(row, "accuracy")
    if row is None or figure is None:
        return Cell()
    return Cell(f"{share(figure)} of {figure.count}", conditions_of_reason(row))


def _speed(file: File, begin: str) -> Cell:
    usual = {"pp": "pp512", "tg": "tg128"}[begin]
    row = preferred(
        [row for row in file.of("speed") if "tokens_per_second" in row.figures],
        lambda row: row.test == usual,
        lambda row: row.test.startswith(begin),
    )
    figure = figure_of(row, "tokens_per_second")
    if row is None or figure is None:
        return Cell()
    return Cell(speed(figure), row.test, bool(row.conditions.disturbed))


def _memory(file: File) -> Cell:
    """The most that any of its speed rows took."""
    found = [figure.mean for row in file.of("speed") if (figure := row.figures.get("bytes")) is not None]
    return Cell(str(ByteCount(max(found)))) if found else Cell()
