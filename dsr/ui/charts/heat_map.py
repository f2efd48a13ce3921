"""A heat map as data and as text for a terminal; `heat_map_svg` draws it as a picture."""

from __future__ import annotations

from dataclasses import dataclass

# Level n begins at _FROM[n], twice the beginning of the level before it. Smaller values have the first level.
_FROM = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0)
LEVELS = ("less", "1/8", "1/4", "1/2", "1", "2", "4", "8", "16")
_CHARACTERS = ".:-=+*#%@"
# Backgrounds of xterm's 256 colours, from dark to light.
_COLOURS = (17, 54, 90, 126, 161, 203, 208, 220, 230)
_WIDEST_CELL = 4
_TICK = 5  # columns that the number of a column may need


@dataclass(frozen=True, slots=True)
class HeatMap:
    """`rows` are labels with values; a value of 1 is average, 0 is drawn blank. All rows have as many values."""

    name: str
    rows: tuple[tuple[str, tuple[float, ...]], ...]

    @property
    def columns(self) -> int:
        return len(self.rows[0][1])


def level(value: float) -> int:
    """The place in LEVELS of a value above 0."""
    return max(level for level, least in enumerate(_FROM) if value >= least)


def heat_map_lines(heat_map: HeatMap, *, width: int, colour: bool) -> list[str]:
    """Lines at most `width` columns wide: column numbers, then each row.

    Where the values of a row do not fit, a cell shows the largest of several values.
    """
    left = _left(heat_map)
    group = values_per_cell(heat_map, width)
    cells = -(-heat_map.columns // group)
    wide = max(1, min(_WIDEST_CELL, (width - left - 2) // cells))
    every = -(-_TICK // wide)
    numbers = "".join(f"{cell * group:<{every * wide}}" for cell in range(0, cells, every))
    lines = [(" " * (left + 1) + numbers)[:width].rstrip()]
    for label, values in heat_map.rows:
        largest = [max(values[at : at + group]) for at in range(0, len(values), group)]
        lines.append(f"{label:<{left}}│{''.join(_cell(value, wide, colour) for value in largest)}│")
    return lines


def values_per_cell(heat_map: HeatMap, width: int) -> int:
    """How many values share a cell, a power of two, so that a row fits in `width` columns."""
    group = 1
    while -(-heat_map.columns // group) > max(1, width - _left(heat_map) - 2):
        group *= 2
    return group


def legend(colour: bool) -> str:
    """Returns the legend of the blocks, in one line."""
    parts = (f"{_block(number, 1, colour)} {name}" for number, name in enumerate(LEVELS))
    return "  ".join(parts) + "  blank: never"


def _left(heat_map: HeatMap) -> int:
    return max(len(label) for label, _ in heat_map.rows) + 1


def _cell(value: float, width: int, colour: bool) -> str:
    return _block(level(value), width, colour) if value > 0 else " " * width


def _block(number: int, width: int, colour: bool) -> str:
    return f"\x1b[48;5;{_COLOURS[number]}m{' ' * width}\x1b[0m" if colour else _CHARACTERS[number] * width
