from __future__ import annotations

from runtime.engine.backend import Checkpoint
from runtime.engine.prefix_plan import Held, Start, plan_start

TEN = Checkpoint(10, 8, 0)


def attention(length: int) -> Held:
    return Held(length, 1, {})


def recurrent(length: int, *checkpoints: Checkpoint) -> Held:
    return Held(length, length, {each.length: each for each in checkpoints})


def test_with_nothing_cached_the_first_free_sequence_is_taken() -> None:
    assert plan_start({}, free={3, 2}, idle=[1], busy=[0]) == Start(2)


def test_without_a_free_one_the_least_recently_used_gives_way() -> None:
    assert plan_start({}, free=[], idle=[1, 2], busy=[0]) == Start(1, dropped=(1,))


def test_while_all_are_busy_nothing_can_begin() -> None:
    assert plan_start({0: (5, attention(5))}, free=[], idle=[], busy=[0, 1]) is None


def test_an_idle_sequence_that_is_a_beginning_goes_on_by_itself() -> None:
    assert plan_start({1: (5, attention(5))}, free=[0], idle=[1], busy=[]) == Start(1, 1, 5)


def test_a_longer_one_is_forked_where_the_texts_part() -> None:
    assert plan_start({1: (5, attention(9))}, free=[0], idle=[1], busy=[]) == Start(0, 1, 5)


def test_the_longest_beginning_wins() -> None:
    common = {0: (4, attention(9)), 1: (7, attention(8)), 2: (6, attention(6))}
    assert plan_start(common, free=[3], idle=[0, 1, 2], busy=[]) == Start(3, 1, 7)


def test_a_busy_sequence_is_a_beginning_too_and_stays_as_it_is() -> None:
    assert plan_start({0: (5, attention(5))}, free=[], idle=[1], busy=[0]) == Start(1, 0, 5, dropped=(1,))


def test_the_source_is_cut_where_no_other_sequence_is_left() -> None:
    assert plan_start({1: (5, attention(9))}, free=[], idle=[1], busy=[0]) == Start(1, 1, 5)


def test_the_source_is_not_dropped_for_its_own_copy() -> None:
    assert plan_start({1: (5, attention(9))}, free=[], idle=[1, 2], busy=[0]) == Start(2, 1, 5, dropped=(2,))


def test_a_recurrent_state_is_used_as_a_whole_or_by_a_checkpoint() -> None:
    assert plan_start({1: (12, recurrent(12))}, free=[0], idle=[1], busy=[]) == Start(1, 1, 12)
    assert plan_start({1: (12, recurrent(20))}, free=[0], idle=[1], busy=[]) == Start(0)
    assert plan_start({1: (12, recurrent(20, TEN))}, free=[0], idle=[1], busy=[]) == Start(0, 1, 10, TEN)
    assert plan_start({1: (9, recurrent(20, TEN))}, free=[0], idle=[1], busy=[]) == Start(0)


def test_a_window_goes_back_as_far_as_it_reaches() -> None:
    window = Held(100, 60, {10: TEN})
    assert window.reach(70) == (70, None)
    assert window.reach(59) == (10, TEN)
    assert window.reach(100) == (100, None)
    assert window.reach(5) == (0, None)


def test_a_fork_of_a_window_holds_too_little_to_be_trimmed() -> None:
    window = Held(100, 60, {10: TEN})
    assert window.reach(70, forked=True) == (10, TEN)
    assert window.reach(100, forked=True) == (100, None)
    assert attention(100).reach(70, forked=True) == (70, None)


def test_a_window_is_trimmed_in_its_place_where_no_checkpoint_is_near() -> None:
    near, far = Checkpoint(30, 8, 0), TEN
    for checkpoint, expected in ((far, Start(1, 1, 90)), (near, Start(0, 1, 30, near))):
        window = Held(100, 60, {checkpoint.length: checkpoint})
        assert plan_start({1: (90, window)}, free=[0], idle=[1], busy=[]) == expected
    # What draws is not cut.
    assert plan_start({1: (90, window)}, free=[0], idle=[], busy=[1]) == Start(0, 1, 30, near)
