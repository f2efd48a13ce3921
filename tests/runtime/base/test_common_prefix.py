from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.common_prefix import common_length


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((), (1,), 0),
        ((1, 2), (1, 2), 2),
        ((1, 2, 3), (1, 2), 2),
        ((1, 2), (3, 2), 0),
        ([1, 2, 3], (1, 2, 4), 2),
        ("a text", "a test", 4),
        ([b"a", b"b"], [b"a"], 1),
    ],
)
def test_lists_tuples_and_texts_are_equal_up_to_their_first_difference(
    one: list[object], other: list[object], expected: int
) -> None:
    assert common_length(one, other) == common_length(other, one) == expected


def test_the_second_is_compared_from_its_start() -> None:
    assert common_length([3, 4], [1, 2, 3, 4, 5], start=2) == 2
    assert common_length([1], [1, 2], start=5) == 0


@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 47, 48, 100, 9_998, 9_999])
def test_a_difference_is_found_at_every_distance(at: int) -> None:
    one = [7] * 10_000
    assert common_length(one, [*one[:at], 8, *one[at + 1 :]]) == at


@given(st.lists(st.integers(0, 1), max_size=80), st.lists(st.integers(0, 1), max_size=80), st.integers(0, 90))
def test_it_is_what_a_loop_would_count(one: list[int], other: list[int], start: int) -> None:
    counted = 0
    for ours, theirs in zip(one, other[start:], strict=False):
        if ours != theirs:
            break
        counted += 1
    assert common_length(one, tuple(other), start) == counted
