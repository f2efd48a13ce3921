from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsr.serve.pool.room import SHARE, Memory, Resident, Room, make_room

GIB = 1 << 30


def memory(total: int, available: int) -> Memory:
    return Memory(total * GIB, available * GIB)


def resident(name: str, size: int, used: float = 0.0, *, busy: bool = False) -> Resident:
    return Resident(name, size * GIB, used, busy)


def test_a_model_that_fits_lets_the_others_stay() -> None:
    assert make_room(4 * GIB, memory(16, 10), [resident("a", 2)], 3) == Room()


def test_the_model_unused_for_longest_leaves_first() -> None:
    others = [resident("new", 4, 9.0), resident("old", 4, 1.0), resident("middle", 4, 5.0)]
    room = make_room(4 * GIB, memory(16, 1), others, 9)
    assert (room.leave, room.wait) == (("old",), False)


def test_more_than_one_leaves_if_one_is_not_enough() -> None:
    room = make_room(7 * GIB, memory(16, 0), [resident("a", 4, 1.0), resident("b", 4, 2.0)], 9)
    assert (room.leave, room.wait) == (("a", "b"), False)


def test_a_busy_model_never_leaves() -> None:
    room = make_room(4 * GIB, memory(8, 0), [resident("busy", 6, busy=True), resident("idle", 1)], 9)
    assert room == Room((), True, "it needs 4.00 GiB, and 1.00 GiB are free")


def test_the_number_of_models_counts_too() -> None:
    others = [resident("a", 1, 1.0), resident("b", 1, 2.0, busy=True)]
    assert make_room(GIB, memory(64, 60), others, 2).leave == ("a",)
    busy = [resident("a", 1, busy=True), resident("b", 1, busy=True)]
    assert make_room(GIB, memory(64, 60), busy, 2) == Room((), True, "2 models are open, and --max-models is 2")


def test_a_model_larger_than_the_memory_gets_in_alone() -> None:
    assert make_room(99 * GIB, memory(16, 15), [], 3).wait is False
    room = make_room(99 * GIB, memory(16, 15), [resident("a", 1)], 3)
    assert (room.leave, room.wait) == (("a",), False)
    assert make_room(99 * GIB, memory(16, 15), [resident("a", 1, busy=True)], 3).wait is True


def test_mapped_models_count_although_the_system_calls_their_pages_available() -> None:
    """16 GiB, of which a mapped model of 10 GiB leaves 15 available; 8 more do not fit next to it."""
    assert make_room(8 * GIB, memory(16, 15), [resident("mapped", 10)], 3).leave == ("mapped",)


_RESIDENTS = st.lists(
    st.builds(
        Resident,
        st.uuids().map(str),
        st.integers(0, 64 * GIB),
        st.floats(0, 1e6),
        st.booleans(),
    ),
    max_size=6,
)


@given(st.integers(0, 64 * GIB), st.integers(0, 64 * GIB), st.integers(0, 64 * GIB), _RESIDENTS, st.integers(1, 6))
def test_no_busy_model_leaves_and_nobody_waits_for_idle_ones(
    need: int, total: int, available: int, residents: list[Resident], most: int
) -> None:
    room = make_room(need, Memory(total, min(total, available)), residents, most)
    by_name = {each.name: each for each in residents}
    assert not any(by_name[name].busy for name in room.leave)
    staying = [each for each in residents if each.name not in room.leave]
    if room.wait:
        assert room.leave == () and any(each.busy for each in residents)
    else:
        assert len(staying) < most
        fits = need + sum(each.memory for each in staying) <= int(total * SHARE)
        assert fits or not staying
