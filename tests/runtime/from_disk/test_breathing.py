from functools import partial

from runtime.from_disk.breathing import breathe

FULL = partial(breathe, 1000, 1000, least=50, whole=5000)


def test_units_take_what_is_free_beyond_the_spare_memory() -> None:
    assert FULL(free=500, spare=100) == 1400


def test_what_they_may_take_and_have_not_taken_is_free_only_once() -> None:
    assert breathe(1000, 300, free=1200, spare=100, least=50, whole=5000) == 1400


def test_they_give_memory_back_that_others_need() -> None:
    assert FULL(free=20, spare=100) == 920


def test_they_keep_the_least_and_take_no_more_than_all() -> None:
    assert FULL(free=0, spare=5000) == 50
    assert FULL(free=9000, spare=100) == 5000


def test_small_changes_are_not_made() -> None:
    assert FULL(free=110, spare=100) == 1000
