"""Scales: places of values, and round ticks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.ui.charts.scales import Scale, fitting, written


def test_ticks_are_round() -> None:
    assert Scale(0, 13, 0, 100, False).ticks(7) == (0, 2, 4, 6, 8, 10, 12)
    assert Scale(0.0002, 0.4, 0, 100, True).ticks(7) == pytest.approx((0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3))
    assert Scale(1e-9, 1, 0, 100, True).ticks(4) == pytest.approx((1e-9, 1e-6, 1e-3, 1))
    assert Scale(41, 44, 0, 100, True).ticks(4) == (41, 42, 43, 44)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (1500, "1\u202f500"),
        (3e-6, "3·10⁻⁶"),
        (1e-6, "10⁻⁶"),
        (12.0, "12"),
        (0.0001, "0.0001"),
    ],
)
def test_ticks_are_written_shortly(value: float, text: str) -> None:
    assert written(value) == text


def test_a_scale_turns_downwards() -> None:
    scale = Scale(1, 100, 300, 0, True)
    assert [scale.at(value) for value in (1, 10, 100)] == [300, 150, 0]


@given(
    st.lists(st.floats(1e-9, 1e18), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_every_value_has_its_place(values: list[float], logarithmic: bool, zero: bool) -> None:
    scale = fitting(values, 0, 100, logarithmic=logarithmic, zero=zero)
    assert all(-1e-6 <= scale.at(value) <= 100 + 1e-6 for value in values)
    assert len(scale.ticks(7)) <= 12
