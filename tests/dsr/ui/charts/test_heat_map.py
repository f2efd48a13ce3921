"""Heat maps for a terminal."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dsr.ui.charts.heat_map import HeatMap, heat_map_lines, legend, values_per_cell


def lines_of(*rows: tuple[str, list[float]], width: int, colour: bool = False) -> list[str]:
    return heat_map_lines(
        HeatMap("a", tuple((label, tuple(values)) for label, values in rows)), width=width, colour=colour
    )


def test_each_doubling_has_a_character_of_its_own_and_nothing_is_blank() -> None:
    values = [0, 0.01, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 99]
    assert lines_of(("layer 1", values), width=22) == [
        "         0    5    10",
        "layer 1 │ .:-=+*#%@@│",
    ]


def test_few_experts_get_wide_cells() -> None:
    assert lines_of(("layer 1", [1, 0]), ("layer 12", [0, 2]), width=80) == [
        "          0",
        "layer 1  │++++    │",
        "layer 12 │    ****│",
    ]


def test_a_cell_of_several_shows_the_largest() -> None:
    lines = lines_of(("a", [0, 8, 1, 0.25, 0, 0]), width=8)
    assert lines[1] == "a │%+ │"


def test_256_experts_fit_80_columns() -> None:
    row = tuple(float(expert % 5) for expert in range(256))
    found = HeatMap("a", (("layer 3", row), ("layer 60", row)))
    lines = heat_map_lines(found, width=80, colour=False)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["0", "20", "40", "60", "80", "100", "120", "140", "160", "180", "200", "220", "240"]
    assert values_per_cell(found, 80) == 4


def test_colours_are_backgrounds_of_blanks() -> None:
    lines = lines_of(("a", [0, 1]), width=6, colour=True)
    assert lines[1] == "a │ \x1b[48;5;161m \x1b[0m│"
    assert "\x1b[48;5;161m \x1b[0m 1  " in legend(colour=True)


def test_the_legend_fits_80_columns() -> None:
    assert legend(colour=False) == ". less  : 1/8  - 1/4  = 1/2  + 1  * 2  # 4  % 8  @ 16  blank: never"
    assert len(re.sub(r"\x1b\[[^m]*m", "", legend(colour=True))) <= 80


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=300), st.integers(20, 200), st.booleans())
def test_no_line_is_wider_than_allowed(values: list[float], width: int, colour: bool) -> None:
    for line in lines_of(("layer 12", values), width=width, colour=colour):
        assert len(re.sub(r"\x1b\[[^m]*m", "", line)) <= width
