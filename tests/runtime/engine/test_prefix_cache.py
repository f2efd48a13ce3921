from __future__ import annotations

from runtime.engine.backend import Batch, Checkpoint
from runtime.engine.kept_state import KeptState
from runtime.engine.prefix_cache import PrefixCache
from tests.fakes import FakeBackend

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


def test_a_full_window_that_lost_cells_is_no_beginning_of_a_text_that_parts_from_it_there() -> None:
    """The engine writes to cells that no next token sees, also where a window has room for all."""
    backend = backend_of()
    cache = PrefixCache(backend, 3)
    held = read(cache, backend, "a long conversation")
    backend.lost[held] = len("a long c")
    before = backend.decoded
    assert cache.export(list(b"a long story")) is None
    read(cache, backend, "a long story")
    read(cache, backend, "a long concert")
    assert backend.decoded - before == len("a long story") + len("cert")
    assert not cache._busy


def test_a_part_of_which_a_full_window_lost_cells_is_not_moved() -> None:
    backend = FakeBackend(lambda held, seed: 256, batch_size=1000, sequences=4)
    cache = PrefixCache(backend, 3)
    rest = "".join(f" line {number}" for number in range(100))
    held = read(cache, backend, "begin old" + rest)
    edited = list(("begin newer" + rest).encode())
    for lost, splices in ((0, True), (len("begin old"), True), (len("begin old") + 1, False)):
        backend.lost[held] = lost
        planned = cache.plan(edited, approximate=True)
        assert planned is not None
        assert (planned.splice is not None) is splices


def test_a_copy_that_cannot_be_cut_is_given_back() -> None:
    backend = backend_of()
    cache = PrefixCache(backend, 3)
    read(cache, backend, "a long conversation")
    backend.trim = lambda slot, length: False if length else FakeBackend.trim(backend, slot, 0)  # type: ignore[method-assign]
    assert cache.export(list(b"a long story")) is None
    assert backend.cells() == len("a long conversation")
    assert not cache._busy


def test_nothing_is_exported_of_a_text_that_is_not_cached() -> None:
    backend = backend_of()
    cache = PrefixCache(backend, 3)
    read(cache, backend, "abc")
    assert cache.export(list(b"xyz")) is None


def test_a_state_without_room_is_refused_and_nothing_is_lost() -> None:
    backend = backend_of(context=10)
    cache = PrefixCache(backend, 3)
    assert not cache.adopt(KeptState(tuple(range(20)), repr(([*range(20)], [], 0)).encode()))
    assert backend.cells() == 0
