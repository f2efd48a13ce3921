"""A table of a bench: shown in a terminal, and written as Markdown or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_BAR = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Column:
    """`right`: the column is aligned right, as numbers are."""

    heading: str
    right: bool = False


def left(*headings: str) -> tuple[Column, ...]:
    """Returns columns of text."""
    return tuple(Column(heading) for heading in headings)


def right(*headings: str) -> tuple[Column, ...]:
    """Returns columns of numbers."""
    return tuple(Column(heading, right=True) for heading in headings)


@dataclass(frozen=True, slots=True)
class Table:
    """Each row has a cell for each column. `title` names the table where several are shown."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    @classmethod
    def of(cls, columns: Sequence[Column], rows: Iterable[Sequence[str]], title: str = "") -> Table:
        return cls(tuple(columns), tuple(map(tuple, rows)), title)

    @property
    def headings(self) -> tuple[str, ...]:
        return tuple(column.heading for column in self.columns)

    @property
    def right(self) -> tuple[int, ...]:
        """Returns the indices of the columns that are aligned right."""
        return tuple(number for number, column in enumerate(self.columns) if column.right)

    def select(self, indices: Iterable[int]) -> Table:
        """Returns the table with only these columns."""
        chosen = list(indices)
        rows = (tuple(row[number] for number in chosen) for row in self.rows)
        return Table.of([self.columns[number] for number in chosen], rows, self.title)

    def join(self, other: Table) -> Table:
        """Returns the columns of both. The other table has as many rows."""
        rows = (one + more for one, more in zip(self.rows, other.rows, strict=True))
        return Table.of(self.columns + other.columns, rows, self.title)

    def without_first(self) -> Table:
        return self.select(range(1, len(self.columns)))

    def without_empty(self) -> Table:
        """Returns the table without the columns whose cells are all empty."""
        return self.select(number for number in range(len(self.columns)) if any(row[number] for row in self.rows))

    def markdown(self) -> tuple[str, ...]:
        """Returns the lines of the table in Markdown of GitHub. The title is not among them."""
        rule = [_line(["--:" if column.right else ":--" for column in self.columns])]
        head, *rows = (_line([_escaped(cell) for cell in cells]) for cells in (self.headings, *self.rows))
        return (head, *rule, *rows)


def csv_text(objects: Sequence[Mapping[str, Any]]) -> str:
    """Returns CSV with a line for each object. Figures have all digits.

    Every key of any object is a column. An object without the key leaves its cell empty.
    """
    out = io.StringIO()
    columns = dict.fromkeys(name for each in objects for name in each)
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(objects)
    return out.getvalue()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(cell: str) -> str:
    """Escapes bars, which would end the cell, even in code. Keeps bars that are already escaped."""
    return _BAR.sub(r"\\|", cell)
