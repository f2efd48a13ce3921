from __future__ import annotations

from runtime.engine.backend import Batch, Checkpoint
from runtime.engine.kept_state import KeptState
from runtime.engine.prefix_cache import Held, PrefixCache, Start, plan_start
from tests.fakes import FakeBackend

TEN = Checkpoint(10, 8, 0)


def attention(length: int) -> Held:
    return Held(length, 1, {})


def recurrent(length: int, *checkpoints: Checkpoint) -> Held:
    return Held(length, length, {each.length: each for each in checkpoints})


# Where a text begins


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


# What stays


def read(cache: PrefixCache, backend: FakeBackend, text: str) -> int:
    """Read a text as the engine does; returns its sequence, which is idle then."""
    tokens = list(text.encode())
    planned = cache.plan(tokens)
    assert planned is not None
    start = cache.begin(planned)
    if start.length < len(tokens):
        batch = Batch()
        batch.add(tokens[start.length :], start.length, start.target, output=False)
        assert cache.make_room(len(batch.tokens))
        backend.decode(batch)
        cache.decoded(batch)
    cache.release(start.target)
    return start.target


def backend_of(context: int = 100, goes_back: int | None = None, sequences: int = 4) -> FakeBackend:
    return FakeBackend(
        lambda held, seed: 256, context=context, goes_back=goes_back, sequences=sequences, batch_size=512
    )


def test_a_text_is_read_once_whoever_asks() -> None:
    backend = backend_of()
    cache = PrefixCache(backend, 3)
    read(cache, backend, "system: be kind. one")
    read(cache, backend, "system: be kind. two")
    read(cache, backend, "system: be kind. one, and more")
    assert backend.decoded == len("system: be kind. one") + len("two") + len(", and more")


def test_the_least_recently_used_text_makes_room() -> None:
    backend = backend_of(context=25)
    cache = PrefixCache(backend, 3)
    first, second = read(cache, backend, "a" * 10), read(cache, backend, "b" * 10)
    read(cache, backend, "a" * 10)
    read(cache, backend, "c" * 10)
    assert backend.held(second) == []
    assert backend.held(first) == list(b"a" * 10)


def test_what_is_in_use_never_goes() -> None:
    backend = backend_of(context=25)
    cache = PrefixCache(backend, 3)
    planned = cache.plan(list(b"a" * 20))
    assert planned is not None
    start = cache.begin(planned)
    batch = Batch()
    batch.add(list(b"a" * 20), 0, start.target, output=False)
    backend.decode(batch)
    cache.decoded(batch)
    assert not cache.make_room(10)
    assert len(backend.held(start.target)) == 20


def test_checkpoints_are_bounded_and_the_oldest_goes_first() -> None:
    backend = backend_of(context=1000, goes_back=0)
    cache = PrefixCache(backend, 2)
    for length in (100, 200, 300):
        cache.keep_checkpoint(read(cache, backend, "a" * length))
    sequence = read(cache, backend, "a" * 301)
    assert sorted(cache._tree.checkpoints(sequence)) == [200, 300]
    planned = cache.plan(list(b"a" * 200 + b"X"))
    assert planned is not None
    assert (planned.source, planned.length) == (sequence, 200)


def test_a_checkpoint_that_spares_hardly_more_than_a_shorter_one_is_not_kept_for_it() -> None:
    backend = backend_of(context=1000, goes_back=0)
    cache = PrefixCache(backend, 1)
    for length in (100, 164):
        cache.keep_checkpoint(read(cache, backend, "a" * length))
    assert sorted(cache._tree.checkpoints(read(cache, backend, "a" * 165))) == [100]
    cache.keep_checkpoint(read(cache, backend, "a" * 166))
    assert sorted(cache._tree.checkpoints(read(cache, backend, "a" * 167))) == [166]


def test_a_checkpoint_that_is_used_again_and_again_stays() -> None:
    backend = backend_of(goes_back=0)
    cache = PrefixCache(backend, 2)
    cache.keep_checkpoint(read(cache, backend, "file "))
    for question in ("a?", "b?", "c?", "d?"):
        before = backend.decoded
        cache.keep_checkpoint(read(cache, backend, f"file {question}"))
        assert backend.decoded - before == len(question)
        read(cache, backend, f"file {question} answer")


def test_a_checkpoint_that_is_refused_begins_with_nothing() -> None:
    class Forgetful(FakeBackend):
        def restore(self, checkpoint: Checkpoint, slot: int) -> bool:
            self.trim(slot, 0)
            return False

    backend = Forgetful(lambda held, seed: 256, context=100, goes_back=0, sequences=4)
    cache = PrefixCache(backend, 2)
    cache.keep_checkpoint(read(cache, backend, "ab"))
    read(cache, backend, "abcd")
    before = backend.decoded
    read(cache, backend, "abX")
    assert backend.decoded - before == 3


# States that leave the process


def test_a_state_goes_to_another_process_and_is_a_beginning_there() -> None:
    backend = backend_of()
    cache = PrefixCache(backend, 3)
    read(cache, backend, "a long conversation")
    kept = cache.export(list(b"a long story"))
    assert kept is not None
    assert kept.tokens == tuple(b"a long ")
    assert backend.cells() == len("a long conversation")
    other = backend_of()
    another = PrefixCache(other, 3)
    assert another.adopt(kept)
    read(another, other, "a long story")
    assert other.decoded == len("story")


def test_a_recurrent_state_leaves_as_a_whole_with_its_checkpoints() -> None:
    backend = backend_of(goes_back=0)
    cache = PrefixCache(backend, 3)
    cache.keep_checkpoint(read(cache, backend, "a long "))
    read(cache, backend, "a long conversation")
    kept = cache.export(list(b"a long story"))
    assert kept is not None
    assert kept.tokens == tuple(b"a long conversation")
    assert [each.length for each in kept.checkpoints] == [7]


def test_nothing_is_exported_of_a_text_that_is_not_cached() -> None:
    backend = backend_of()
    cache = PrefixCache(backend, 3)
    read(cache, backend, "abc")
    assert cache.export(list(b"xyz")) is None


def test_a_state_without_room_is_refused_and_nothing_is_lost() -> None:
    backend = backend_of(context=10)
    cache = PrefixCache(backend, 3)
    assert not cache.adopt(KeptState(tuple(range(20)), repr([*range(20)]).encode()))
    assert backend.cells() == 0
