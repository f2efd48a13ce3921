from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.backend import Batch
from runtime.engine.cache_journal import CacheJournal
from tests.fakes import FakeBackend

SLOTS = 3

decoding = st.tuples(
    st.just("decode"), st.lists(st.tuples(st.integers(0, SLOTS), st.lists(st.integers(0, 2), max_size=3)), max_size=3)
)
forking = st.tuples(st.just("fork"), st.integers(0, SLOTS), st.integers(0, SLOTS))
trimming = st.tuples(st.just("trim"), st.integers(0, SLOTS), st.integers(0, 4))


def held(backend: FakeBackend) -> dict[int, list[int]]:
    return {slot: tokens for slot in range(backend.sequences) if (tokens := backend.held(slot))}


@given(st.lists(st.one_of(decoding, forking, trimming), max_size=20))
def test_another_backend_comes_to_hold_the_same(actions: list[tuple[object, ...]]) -> None:
    backend, journal = FakeBackend(lambda held, seed: 0, slots=SLOTS), CacheJournal()
    for action in actions:
        match action:
            case ("decode", list(parts)):
                batch = Batch()
                for slot, tokens in dict(parts).items():
                    batch.add(tokens, len(backend.held(slot)), slot, output=bool(tokens))
                if batch.tokens:
                    backend.decode(batch)
                    journal.decoded(batch)
            case ("fork", int(source), int(target)) if source != target:
                backend.trim(target, 0)
                backend.fork(source, target)
                journal.trimmed(target, 0)
                journal.forked(source, target)
            case ("trim", int(slot), int(length)):
                backend.trim(slot, length)
                journal.trimmed(slot, length)
    other = FakeBackend(lambda held, seed: 0, slots=SLOTS, batch_size=9)
    journal.restore(other)
    assert held(other) == held(backend)
    # The rows of the last batch can still be drawn from.
    assert other._rows == backend._rows


def test_what_slots_have_in_common_is_read_once() -> None:
    journal = CacheJournal()
    prompt = Batch()
    prompt.add(list(range(20)), 0, 2, output=False)
    journal.decoded(prompt)
    for slot in (0, 1):
        journal.forked(2, slot)
    step = Batch()
    for slot in (0, 1):
        step.add([50 + slot], 20, slot, output=True)
    journal.decoded(step)
    other = FakeBackend(lambda held, seed: 0, slots=2)
    journal.restore(other)
    assert other.batches == [20, 2]


def test_a_restored_checkpoint_is_read_again_where_the_model_cannot_trim() -> None:
    journal = CacheJournal()
    prompt = Batch()
    prompt.add(list(range(20)), 0, 2, output=False)
    journal.decoded(prompt)
    journal.trimmed(2, 12)  # by a checkpoint
    journal.forked(2, 0)
    other = FakeBackend(lambda held, seed: 0, slots=2, goes_back=0)
    journal.restore(other)
    assert held(other) == {0: list(range(12)), 2: list(range(12))}
