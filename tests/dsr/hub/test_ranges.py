"""Which bytes of a file are missing, and who fetches them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.hub.ranges import LEAST, RECORD, Hole, Missing, newest, read_record, record

SIZE = 100 * LEAST


def test_parts_are_taken_in_order() -> None:
    missing = Missing([(0, 10), (20, 22)])
    parts = [missing.take(6), missing.take(6), missing.take(6), missing.take(6)]
    assert [(part.at, part.stop) for part in parts if part] == [(0, 6), (6, 10), (20, 22)]
    assert parts[3] is None and not missing.available
    assert (missing.size, missing.in_flight) == (12, 3)


def test_what_is_left_of_a_part_is_taken_again_first() -> None:
    missing = Missing([(0, 100)])
    first, second = missing.take(10), missing.take(10)
    assert first and second
    first.at = 4
    missing.end(first)
    again = missing.take(50)
    assert again and (again.at, again.stop) == (4, 10)
    assert first.left == 0


def test_a_part_goes_on_where_no_other_one_is() -> None:
    missing = Missing([(0, 100)])
    part = missing.take(10)
    assert part
    part.at = 10
    missing.extend(part, 20)
    assert (part.at, part.stop) == (10, 30)
    other = missing.take(20)
    assert other and (other.at, other.stop) == (30, 50)
    missing.extend(part, 20)
    assert part.stop == 30


def test_the_second_half_of_the_largest_part_is_stolen() -> None:
    missing = Missing([(0, 10 * LEAST)])
    small, large = missing.take(3 * LEAST), missing.take(SIZE)
    assert small and large and missing.take(SIZE) is None
    large.at = 4 * LEAST
    stolen = missing.take(SIZE, steal=True)
    assert stolen and (stolen.at, stolen.stop, large.stop) == (7 * LEAST, 10 * LEAST, 7 * LEAST)


def test_a_small_rest_is_not_worth_a_request() -> None:
    missing = Missing([(0, 2 * LEAST - 1)])
    assert missing.take(SIZE) and missing.take(SIZE, steal=True) is None


def test_holes_that_touch_are_one() -> None:
    missing = Missing([(0, 10), (15, 20)])
    part = missing.take(4)
    assert part and missing.holes == [(0, 10), (15, 20)]
    part.at = 3
    assert missing.holes == [(3, 10), (15, 20)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60 * LEAST)), max_size=60))
def test_every_byte_is_fetched_once_whatever_the_connections_do(moves: list[tuple[int, int]]) -> None:
    missing, parts, fetched = Missing([(0, SIZE)]), [], 0
    for move, amount in moves:
        if move == 0 and (part := missing.take(amount, steal=True)):
            parts.append(part)
        elif parts and move == 1:
            part = parts[amount % len(parts)]
            got = min(part.left, amount)
            part.at += got
            fetched += got
        elif parts and move == 2:
            missing.end(parts.pop(amount % len(parts)))
        elif parts and move == 3:
            missing.extend(parts[amount % len(parts)], amount)
        assert missing.size + fetched == SIZE
        holes = missing.holes
        assert sum(stop - start for start, stop in holes) == missing.size
        assert all(a[1] < b[0] for a, b in pairwise(holes))
        assert read_record(record(1, holes), SIZE) == (1, holes)


def test_of_two_records_the_newer_one_counts_and_a_damaged_one_does_not() -> None:
    older, newer = record(7, [(0, 9)]), record(8, [(5, 9)])
    assert newest((newer, older), 9) == (8, [(5, 9)])
    assert newest((newer.replace(b"5-9", b"6-9"), older), 9) == (7, [(0, 9)])
    assert newest((bytes(RECORD), b""), 9) is None
    assert read_record(record(3, []), 9) == (3, [])


@pytest.mark.parametrize("holes", [[(0, 10)], [(5, 4)], [(3, 3)], [(4, 6), (5, 7)], [(4, 6), (0, 2)]])
def test_a_record_of_impossible_holes_is_none(holes: list[Hole]) -> None:
    assert read_record(record(1, holes), 9) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    assert read_record(data, 1 << 40) is None
