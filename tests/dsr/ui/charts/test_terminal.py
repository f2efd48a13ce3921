"""A chart as text for a terminal."""

from __future__ import annotations

import pytest

from dsr.ui.charts.chart import Axis, Chart, Mark
from dsr.ui.charts.terminal import letter, scatter

TOKENS = Axis("tokens per question", logarithmic=True)
EXPERTS = Axis("experts kept in each layer", zero=True)


def chart(*points: tuple[float, float], across: Axis = TOKENS) -> Chart:
    marks = tuple(Mark("x", "x", (), at, up, up - 1, up + 1) for at, up in points)
    return Chart("test", "a title", across, Axis("right, percent"), marks)


def test_a_scatter_in_a_terminal() -> None:
    assert scatter(chart((10, 80), (100, 85), (1000, 90), (1000, 90)), width=48, height=5) == [
        " 90 % ┤                                        ●",
        "      │",
        " 85 % ┤                    b",
        "      │",
        " 80 % ┤a",
        "      └────────────────────────────────────────",
        "      10 tokens per question, logarithmic  1000",
    ]


def test_experts_are_counted_on_a_linear_scale() -> None:
    assert scatter(chart((4, 80), (8, 85), (16, 90), across=EXPERTS), width=48, height=5) == [
        " 90 % ┤                                        c",
        "      │",
        " 85 % ┤             b",
        "      │",
        " 80 % ┤a",
        "      └────────────────────────────────────────",
        "      4      experts kept in each layer      16",
    ]


@pytest.mark.parametrize("points", [[(50, 100)], [(50, 0)], [(0, 0), (0, 0)]])
def test_points_without_a_range_have_a_place(points: list[tuple[float, float]]) -> None:
    drawn = scatter(chart(*points), width=60, height=8)
    assert any("a" in line.split("┤")[-1].split("│")[-1] or "●" in line for line in drawn[:8])
    assert max(map(len, drawn)) <= 60


def test_nothing_is_drawn_of_nothing() -> None:
    assert scatter(chart()) == []


def test_letters_begin_again_when_there_are_too_many() -> None:
    assert [letter(number) for number in (0, 25, 26, 61, 62)] == ["a", "z", "A", "9", "a"]
