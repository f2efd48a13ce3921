from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dsr.bench.kit.ranges import numbers
from runtime.base.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", (512,)),
        ("128,512", (128, 512)),
        ("1-4", (1, 2, 3, 4)),
        ("512-2048+512", (512, 1024, 1536, 2048)),
        ("1-8*2", (1, 2, 4, 8)),
        ("1-9*2", (1, 2, 4, 8)),
        ("3-4+5", (3,)),
        ("0,1-2, 2", (0, 1, 2)),
    ],
)
def test_lists_and_ranges_as_llama_bench_spells_them(text: str, expected: tuple[int, ...]) -> None:
    assert numbers(text, "--pp") == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is neither a number nor a range"),
        ("12x", "'12x' is neither"),
        ("-3", "'-3' is neither"),
        ("1,,2", "'' is neither"),
        ("1-2-3", "'1-2-3' is neither"),
        ("٣", "is neither"),
        ("1" * 5000, "is neither"),
        ("4-1", "the range 4-1 goes backwards"),
        ("1-8*1", "1-8[*]1 never ends"),
        ("1-8+0", "1-8[+]0 never ends"),
        ("0-8*2", "0-8[*]2 never ends"),
        ("1-999999999", "more than 64 numbers"),
    ],
)
def test_bad_ranges_are_one_line(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        numbers(text, "--pp")


def test_numbers_below_the_least_are_refused() -> None:
    with pytest.raises(UsageError, match="--threads 2,0: 0 is less than 1"):
        numbers("2,0", "--threads", least=1)


@given(some.lists(some.integers(0, 10**9 - 1), min_size=1, max_size=64, unique=True))
def test_a_list_comes_back_as_it_was(asked: list[int]) -> None:
    assert numbers(",".join(map(str, asked)), "--pp") == tuple(asked)


@given(some.integers(1, 10**6), some.integers(0, 10**6), some.integers(2, 10**4))
def test_a_geometric_range_multiplies_up_to_its_end(first: int, more: int, factor: int) -> None:
    found = numbers(f"{first}-{first + more}*{factor}", "--pp")
    assert found[0] == first and found[-1] <= first + more < found[-1] * factor
    assert all(b == a * factor for a, b in itertools.pairwise(found))


@given(some.text("0123456789-+*, x", max_size=12))
def test_any_text_is_numbers_or_an_error(text: str) -> None:
    try:
        found = numbers(text, "--pp")
    except UsageError:
        return
    assert 1 <= len(set(found)) == len(found) <= 64
