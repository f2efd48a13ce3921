"""Parts of a cached text that stand at another position of a new one."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from runtime.engine.splice import Splice, find_splice

BEGIN, OLD, REST, MORE = [*range(10)], [*range(100, 105)], [*range(200, 240)], [*range(300, 320)]


def test_the_rest_behind_a_change_is_found() -> None:
    new = [7, 7, 7]
    assert find_splice(BEGIN + OLD + REST, BEGIN + new + REST + MORE) == Splice(prefix=10, at=13, begin=15, end=55)


def test_what_left_the_middle_leaves_nothing_to_read() -> None:
    assert find_splice(BEGIN + OLD + REST + MORE, BEGIN + REST) == Splice(10, 10, 15, 55)


def test_a_change_of_the_same_length_moves_nothing_and_is_found_too() -> None:
    assert find_splice(BEGIN + OLD + REST, [*BEGIN, 1, 1, 1, 1, 1, *REST]) == Splice(10, 15, 15, 55)


def test_the_longest_of_several_parts_is_taken() -> None:
    held = BEGIN + OLD + MORE + OLD + REST
    assert find_splice(held, BEGIN + MORE + [9] + REST) == Splice(10, 31, 40, 80)


def test_nothing_is_found_where_nothing_or_everything_is_the_same() -> None:
    assert find_splice(BEGIN + REST, BEGIN + MORE) is None
    assert find_splice(BEGIN + REST, BEGIN + REST + MORE) is None
    assert find_splice([], REST) is None
    assert find_splice(BEGIN + OLD + REST[:15], BEGIN + REST[:15]) is None


def test_text_that_only_repeats_itself_is_read_again() -> None:
    assert find_splice([1] + [5] * 60, [1, 2] + [5] * 40) is None


TEXTS = st.lists(st.integers(0, 3), max_size=60)


@given(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
@example(BEGIN, OLD, [7], REST, MORE)
def test_what_is_found_is_the_same_text(a: list[int], x: list[int], y: list[int], b: list[int], c: list[int]) -> None:
    held, tokens = a + x + b, a + y + b + c
    found = find_splice(held, tokens)
    if found is None:
        return
    assert held[: found.prefix] == tokens[: found.prefix]
    assert found.prefix <= min(found.at, found.begin)
    assert held[found.begin : found.end] == tokens[found.at : found.at + found.moved]
    assert found.moved >= 16
