"""Heat maps for a terminal."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dsr.ui.heat_map import heat_map, legend, per_cell


def test_each_doubling_has_a_character_of_its_own_and_nothing_is_blank() -> None:
    values = [0, 0.01, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 99]
    assert heat_map([("layer 1", values)], width=22, colour=False) == [
        "         0    5    10",
        "layer 1 │ .:-=+*#%@@│",
    ]


def test_few_experts_get_wide_cells() -> None:
    assert heat_map([("layer 1", [1, 0]), ("layer 12", [0, 2])], width=80, colour=False) == [
        "          0",
        "layer 1  │++++    │",
        "layer 12 │    ****│",
    ]


def test_a_cell_of_several_shows_the_largest() -> None:
    lines = heat_map([("a", [0, 8, 1, 0.25, 0, 0])], width=8, colour=False)
    assert lines[1] == "a │%+ │"


def test_256_experts_fit_80_columns() -> None:
    rows = [(f"layer {number}", [float(expert % 5) for expert in range(256)]) for number in (3, 60)]
    lines = heat_map(rows, width=80, colour=False)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["0", "20", "40", "60", "80", "100", "120", "140", "160", "180", "200", "220", "240"]
    assert per_cell(256, len("layer 60 "), 80) == 4


def test_colours_are_backgrounds_of_blanks() -> None:
    lines = heat_map([("a", [0, 1])], width=6, colour=True)
    assert lines[1] == "a │ \x1b[48;5;161m \x1b[0m│"
    assert "\x1b[48;5;161m \x1b[0m 1  " in legend(colour=True)


def test_the_legend_fits_80_columns() -> None:
    assert legend(colour=False) == ". less  : 1/8  - 1/4  = 1/2  + 1  * 2  # 4  % 8  @ 16  blank: never"
    assert len(re.sub(r"\x1b\[[^m]*m", "", legend(colour=True))) <= 80


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=300), st.integers(20, 200), st.booleans())
def test_no_line_is_wider_than_allowed(values: list[float], width: int, colour: bool) -> None:
    for line in heat_map([("layer 12", values)], width=width, colour=colour):
        assert len(re.sub(r"\x1b\[[^m]*m", "", line)) <= width
