"""Choosing a thread count, with a clock that only decoding moves."""

from __future__ import annotations

import pytest

from runtime.engine.backend import Batch
from runtime.machine.threads import candidates, measure
from tests.fakes import FakeBackend


class TimedBackend(FakeBackend):
    """Decoding a token takes `seconds[threads]`; nothing else takes time."""

    def __init__(self, seconds: dict[int, float], context: int = 1000) -> None:
        super().__init__(lambda held, seed: 0, context=context)
        self.seconds = seconds
        self.clock = 0.0
        self.threads = 0
        self.tried: list[int] = []

    def set_threads(self, threads: int, batch_threads: int) -> None:
        assert threads == batch_threads
        self.threads = threads
        self.tried.append(threads)

    def decode(self, batch: Batch) -> None:
        super().decode(batch)
        self.clock += self.seconds[self.threads]

    def now(self) -> float:
        return self.clock


def chosen(seconds: dict[int, float], **options: int) -> tuple[int, TimedBackend]:
    backend = TimedBackend(seconds, **options)
    winner = measure(backend, tuple(seconds), now=backend.now)
    assert backend.threads == winner
    return winner, backend


@pytest.mark.parametrize(
    ("cores", "counts"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (4, (1, 2, 3, 4)),
        (6, (2, 4, 5, 6)),
        (8, (2, 4, 6, 7, 8)),
        (12, (2, 4, 8, 9, 11, 12)),
        (16, (2, 4, 8, 12, 15, 16)),
        (64, (2, 4, 8, 16, 32, 48, 63, 64)),
    ],
)
def test_candidates(cores: int, counts: tuple[int, ...]) -> None:
    assert candidates(cores) == counts


def test_candidates_never_exceed_the_cores() -> None:
    for cores in range(1, 300):
        counts = candidates(cores)
        assert counts == tuple(sorted(set(counts)))
        assert 1 <= counts[0] <= counts[-1] == cores


def test_the_fastest_count_wins() -> None:
    assert chosen({1: 0.010, 2: 0.006, 3: 0.004, 4: 0.005})[0] == 3


def test_one_thread_wins_on_a_busy_machine() -> None:
    assert chosen({1: 0.010, 2: 0.120})[0] == 1


def test_fewer_threads_win_when_it_is_nearly_equal() -> None:
    assert chosen({1: 0.0100, 2: 0.0097})[0] == 1
    assert chosen({1: 0.0100, 2: 0.0090})[0] == 2
    # Small gains add up only while each is worth it.
    assert chosen({2: 0.0100, 4: 0.0060, 6: 0.0058})[0] == 4


def test_an_only_candidate_is_set_without_measuring() -> None:
    winner, backend = chosen({3: 0.01})
    assert winner == 3
    assert backend.decoded == 0


def test_counts_above_a_disaster_are_not_tried() -> None:
    winner, backend = chosen({1: 0.010, 2: 0.005, 3: 0.100, 4: 1.0})
    assert winner == 2
    assert 4 not in backend.tried


def test_a_burst_of_other_load_does_not_decide() -> None:
    class Burst(TimedBackend):
        """Everything is ten times slower in the first round."""

        def decode(self, batch: Batch) -> None:
            super().decode(batch)
            if len(self.tried) <= 2:
                self.clock += 9 * self.seconds[self.threads]

    backend = Burst({1: 0.010, 2: 0.005})
    assert measure(backend, (1, 2), now=backend.now) == 2


def test_slot_0_is_left_empty() -> None:
    _, backend = chosen({1: 0.010, 2: 0.005})
    assert backend.decoded > 0
    assert backend.cells() == 0


@pytest.mark.parametrize("context", [1, 2, 5])
def test_a_tiny_context_is_enough(context: int) -> None:
    winner, backend = chosen({1: 0.0001, 2: 0.0002}, context=context)
    assert backend.cells() == 0
    assert winner == 1


def test_a_trial_is_short_whatever_the_speed() -> None:
    _, slow = chosen({1: 5.0, 2: 4.0})
    assert slow.decoded == 2 * 3 * 2  # counts, rounds, a token to warm up and one to measure
    _, fast = chosen({1: 1e-9, 2: 1e-9})
    assert fast.decoded == 2 * 3 * 65
