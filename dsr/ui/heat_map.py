"""A heat map for a terminal: rows of blocks, in colour where a person looks and as characters where nobody does."""

from __future__ import annotations

from collections.abc import Sequence

# Each level begins at twice the value of the one before it; what is below all of them is the first.
_FROM = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0)
_NAMES = ("less", "1/8", "1/4", "1/2", "1", "2", "4", "8", "16")
_CHARACTERS = ".:-=+*#%@"
# Backgrounds of xterm's 256 colours, from dark to light.
_COLOURS = (17, 54, 90, 126, 161, 203, 208, 220, 230)
_WIDEST_CELL = 4
_TICK = 5  # columns that the number of an expert may need


def heat_map(rows: Sequence[tuple[str, Sequence[float]]], *, width: int, colour: bool) -> list[str]:
    """Lines at most `width` wide: a ruler, then each row's label and its values, drawn by how they compare with 1.

    A value of 0 is left blank. Where the values of a row do not fit, a cell shows the largest of several.
    """
    left = max(len(label) for label, _ in rows) + 1
    count = len(rows[0][1])
    group = per_cell(count, left, width)
    cells = -(-count // group)
    wide = max(1, min(_WIDEST_CELL, (width - left - 2) // cells))
    every = -(-_TICK // wide)
    ruler = "".join(f"{cell * group:<{every * wide}}" for cell in range(0, cells, every))
    lines = [(" " * (left + 1) + ruler)[:width].rstrip()]
    for label, values in rows:
        strongest = [max(values[at : at + group]) for at in range(0, count, group)]
        lines.append(f"{label:<{left}}│{''.join(_cell(value, wide, colour) for value in strongest)}│")
    return lines


def per_cell(count: int, left: int, width: int) -> int:
    """How many values share a cell, a power of two, so that a row of them fits beside a label of `left` columns."""
    group = 1
    while -(-count // group) > max(1, width - left - 2):
        group *= 2
    return group


def legend(colour: bool) -> str:
    """What the blocks mean, in one line."""
    parts = (f"{_block(level, 1, colour)} {name}" for level, name in enumerate(_NAMES))
    return "  ".join(parts) + "  blank: never"


def _cell(value: float, width: int, colour: bool) -> str:
    if value <= 0:
        return " " * width
    return _block(max(level for level, least in enumerate(_FROM) if value >= least), width, colour)


def _block(level: int, width: int, colour: bool) -> str:
    return f"\x1b[48;5;{_COLOURS[level]}m{' ' * width}\x1b[0m" if colour else _CHARACTERS[level] * width
