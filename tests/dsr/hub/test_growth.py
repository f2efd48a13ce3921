"""More connections only while more bring more."""

from __future__ import annotations

from collections.abc import Callable

from dsr.hub.growth import MOST, Growth

MB = 1_000_000


def after(growth: Growth, seconds: float, rate: Callable[[int], float], start: float = 0.0) -> list[int]:
    """The limits that the growth went through, where `rate(connections)` are the bytes per second."""
    seen, received = [growth.limit], 0.0
    for tick in range(round(seconds / 0.05)):
        received += rate(growth.limit) * 0.05
        growth.observe(start + tick * 0.05, int(start * MB + received), growth.limit)
        if growth.limit != seen[-1]:
            seen.append(growth.limit)
    return seen


def test_a_server_that_limits_each_connection_gets_eight_within_a_second() -> None:
    assert after(Growth(), 1.0, lambda n: 5 * MB * n) == [1, 4, 8]


def test_a_full_line_gets_one_connection() -> None:
    growth = Growth()
    assert after(growth, 4.0, lambda n: 50 * MB) == [1, 4, 2, 1]


def test_a_line_that_another_download_shares_is_not_taken_from_it() -> None:
    """Each connection gets an equal share: with two there are two thirds, a third more than half."""
    growth = Growth()
    assert after(growth, 4.0, lambda n: 50 * MB * n / (n + 1)) == [1, 4, 2, 1]


def test_a_line_of_two_connections_gets_two() -> None:
    assert after(Growth(), 6.0, lambda n: min(20 * MB * n, 40 * MB)) == [1, 4, 2, 4, 3, 2]


def test_more_are_tried_again_after_a_pause_that_doubles() -> None:
    growth = Growth()
    rate = [50 * MB]
    assert after(growth, 5.0, lambda n: rate[0]) == [1, 4, 2, 1]
    rate = [50 * MB]
    assert after(growth, 3.0, lambda n: 5 * MB * n, start=8.0) == [1, 2, 4, 8]


def test_a_slow_start_is_not_taken_for_a_gain() -> None:
    """The speed doubles by itself every 0.2 s until it is 50 MB/s, with any number of connections."""
    growth, received, seen = Growth(), 0.0, [1]
    for tick in range(80):
        now = tick * 0.05
        received += min(50 * MB, 2 * MB * 2 ** (now / 0.2)) * 0.05
        growth.observe(now, int(received), growth.limit)
        if growth.limit != seen[-1]:
            seen.append(growth.limit)
    assert seen == [1, 4, 2, 1]


def test_without_work_for_all_nothing_is_judged() -> None:
    growth = Growth()
    for tick in range(100):
        growth.observe(tick * 0.05, tick * MB, 0)
    assert growth.limit == 1


def test_a_refusal_is_a_bound_for_ever_and_a_lost_connection_for_a_while() -> None:
    growth = Growth()
    after(growth, 2.0, lambda n: 5 * MB * n)
    growth.lost(2.0)
    assert growth.limit == MOST - 1
    growth.refused(2.0, 4)
    assert growth.limit == 3
    after(growth, 100.0, lambda n: 5 * MB * n, start=2.0)
    assert growth.limit == 3
    growth.alone(102.0)
    assert growth.limit == 1
