"""Sudoku boards of 4 by 4, 6 by 6 and 9 by 9 cells: reading, checking and filling. Nothing is solved here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.base.errors import UsageError

# size -> rows and columns of a box
_BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
_CELL = re.compile(r"[1-9]|[0_.?*x](?=[\s|,0-9_.?*x\]]|$)", re.IGNORECASE)
_LINE = re.compile(r"^[\s\d_.?*x|,\[\]+-]+$", re.IGNORECASE)
_STEP = re.compile(r"r(?:ow)?\s*(\d)\D{0,12}?c(?:ol(?:umn)?)?\s*(\d)\D{0,8}?(?:=|is|:)\s*(\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Board:
    """`cells` row by row; 0 is empty."""

    size: int
    cells: tuple[int, ...]

    @property
    def box(self) -> tuple[int, int]:
        return _BOXES[self.size]

    @property
    def empty(self) -> list[int]:
        """The numbers of the empty cells."""
        return [index for index, digit in enumerate(self.cells) if not digit]

    def options(self, cell: int) -> set[int]:
        """The digits that no other cell of its row, column and box has."""
        row, column = divmod(cell, self.size)
        high, wide = self.box
        taken = {
            digit
            for index, digit in enumerate(self.cells)
            if digit
            and index != cell
            and (
                index // self.size == row
                or index % self.size == column
                or (index // self.size // high == row // high and index % self.size // wide == column // wide)
            )
        }
        return set(range(1, self.size + 1)) - taken

    @property
    def valid(self) -> bool:
        """Whether no digit breaks a rule."""
        return all(digit in self.options(cell) for cell, digit in enumerate(self.cells) if digit)

    @property
    def dead(self) -> bool:
        """Whether an empty cell has no digit left."""
        return any(not self.options(cell) for cell in self.empty)

    @property
    def solved(self) -> bool:
        return not self.empty and self.valid

    def filled(self, cell: int, digit: int) -> Board:
        return Board(self.size, (*self.cells[:cell], digit, *self.cells[cell + 1 :]))

    def __str__(self) -> str:
        rows = (self.cells[start : start + self.size] for start in range(0, len(self.cells), self.size))
        return "\n".join(" ".join(str(digit) if digit else "_" for digit in row) for row in rows)


def read(question: str) -> Board:
    """The last board in a question: lines with as many cells, an empty one as _, 0, ., ?, * or x. Raises UsageError."""
    rows: list[tuple[int, ...]] = []
    found: Board | None = None
    for line in [*question.splitlines(), ""]:
        cells = _CELL.findall(line) if _LINE.match(line) else []
        if rows and len(cells) != len(rows[0]):
            rows = []
        if len(cells) in _BOXES:
            rows.append(tuple(int(each) if each.isdigit() else 0 for each in cells))
            if len(rows) == len(cells):
                found, rows = Board(len(cells), tuple(digit for row in rows for digit in row)), []
    if found is None:
        raise UsageError(
            "there is no Sudoku in the question", hint="as 4, 6 or 9 lines of as many cells, such as 1 _ 3 4"
        )
    if not found.valid:
        raise UsageError("the Sudoku breaks its own rules: a digit stands twice in a row, column or box")
    return found


def steps(reply: str, board: Board) -> list[tuple[int, int]]:
    """The (cell, digit) that a reply proposes for empty cells and that break no rule, each once."""
    found: dict[tuple[int, int], None] = {}
    for row, column, digit in _STEP.findall(reply):
        if not (1 <= int(row) <= board.size and 1 <= int(column) <= board.size):
            continue
        cell = (int(row) - 1) * board.size + int(column) - 1
        if not board.cells[cell] and int(digit) in board.options(cell):
            found[cell, int(digit)] = None
    return [*found]
