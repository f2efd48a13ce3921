"""Replays of traces: how much each policy reads, and how little is possible."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.from_disk.policy import Frequency
from tests.routing.replay import Policy, belady, replay
from tests.routing.trace import Trace, of_tokens


class Scores:
    """A policy of fixed worth."""

    def __init__(self, *worth: float) -> None:
        self._worth = np.array(worth)

    def used(self, layer: int, counts: np.ndarray) -> None:
        pass

    def worth(self, layer: int) -> np.ndarray:
        return self._worth


class Recency:
    """Least recently used goes first."""

    def __init__(self, layers: int, experts: int) -> None:
        self._clock, self._last = 0, np.zeros((layers, experts))

    def used(self, layer: int, counts: np.ndarray) -> None:
        self._clock += 1
        self._last[layer][counts > 0] = self._clock

    def worth(self, layer: int) -> np.ndarray:
        return self._last.ravel()


def one_layer(*chosen: int, experts: int = 3) -> Trace:
    """One expert for each token."""
    return of_tokens(np.array(chosen)[:, None, None], experts)


def test_the_unit_of_least_worth_makes_room() -> None:
    replayed = replay(one_layer(0, 1, 2, 0, 1), Scores(3, 2, 1), 2)
    # 0 and 1 come, 2 takes the place of 1, 0 is there, 1 takes the place of 2.
    assert replayed.reads.tolist() == [1, 1, 1, 0, 1]
    assert replayed.needed.tolist() == [1, 1, 1, 1, 1]
    assert replayed.hit_rate == pytest.approx(0.2)
    assert replayed.most == 2


def test_a_unit_that_the_layer_needs_is_never_dropped() -> None:
    trace = of_tokens(np.array([[[0, 1]], [[1, 2]]]), 3)
    assert replay(trace, Scores(5, 1, 2), 2).reads.tolist() == [2, 1]


def test_a_loop_that_is_larger_than_memory_defeats_recency_alone() -> None:
    # A dense model: one unit for each of five layers, all needed in each pass.
    loop = Trace(np.ones((20, 5, 1), int), 1)
    assert replay(loop, Recency(5, 1), 4).hit_rate == 0
    assert replay(loop, Frequency(5, 1, 1), 4).reads[1:].sum() == belady(loop, 4).reads[1:].sum() < 40


def test_a_long_prompt_leaves_the_hot_experts_of_all_layers() -> None:
    rng = np.random.default_rng(4)
    weights = 0.7 ** np.arange(16)
    chosen = np.array(
        [[rng.choice(16, 2, replace=False, p=weights / weights.sum()) for _ in range(4)] for _ in range(540)]
    )
    trace = of_tokens(chosen, 16, passes=[512, *[1] * 28])
    replayed = replay(trace, Frequency(4, 16, 2), 32)
    assert replayed.reads[0] > 56  # nearly all 64
    first = replayed.reads[1:5].sum() / replayed.needed[1:5].sum()
    assert first < 0.15  # without a prompt, and with a memory of the last layers, it is half
    assert replay(trace, Recency(4, 16), 32).reads[1:5].sum() > 1.5 * replayed.reads[1:5].sum()


def test_too_little_memory_for_one_layer_is_refused() -> None:
    trace = of_tokens(np.array([[[0, 1]], [[1, 2]]]), 3, passes=[2])
    with pytest.raises(ValueError, match="room for 2 experts, but a layer needs 3 at once"):
        replay(trace, Scores(1, 1, 1), 2)


def test_belady_drops_the_farthest_next_use() -> None:
    assert belady(one_layer(0, 1, 2, 0, 1, 2), 2).reads.tolist() == [1, 1, 1, 0, 1, 0]


@st.composite
def traces(draw: st.DrawFn, passes: int, layers: int, experts: int) -> Trace:
    shape = (draw(st.integers(1, passes)), draw(st.integers(1, layers)))
    active = draw(st.integers(1, 2))
    choice = st.permutations(range(experts)).map(lambda order: order[:active])
    tokens = draw(st.lists(choice, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    lengths, left = [], shape[0]
    while left:
        lengths.append(draw(st.integers(1, min(left, 3))))
        left -= lengths[-1]
    return of_tokens(np.array(tokens).reshape(*shape, active), experts, passes=lengths)


@settings(deadline=None)
@given(trace=traces(passes=12, layers=3, experts=5), room=st.integers(0, 12))
def test_no_policy_reads_less_than_belady_nor_takes_more_than_its_room(trace: Trace, room: int) -> None:
    capacity = trace.most_at_once + room
    best = belady(trace, capacity)
    policies: list[Policy] = [
        Frequency(trace.layers, trace.experts, trace.active),
        Frequency(trace.layers, trace.experts, trace.active, seed=trace.counts.sum(axis=0)),
        Recency(trace.layers, trace.experts),
        Scores(*range(trace.units)),
    ]
    for policy in policies:
        replayed = replay(trace, policy, capacity)
        assert replayed.most <= capacity
        assert (replayed.reads <= replayed.needed).all()
        assert replayed.reads.sum() >= best.reads.sum() >= np.count_nonzero(trace.counts.sum(axis=0))


@settings(deadline=None)
@given(trace=traces(passes=5, layers=2, experts=3), room=st.integers(0, 3))
def test_belady_is_the_least_of_all_ways(trace: Trace, room: int) -> None:
    capacity = trace.most_at_once + room
    steps = [frozenset(trace.needed(p, layer).tolist()) for p in range(trace.passes) for layer in range(trace.layers)]

    @cache
    def least(step: int, resident: frozenset[int]) -> int:
        if step == len(steps):
            return 0
        wanted = steps[step]
        others = sorted(resident - wanted)
        keep = min(len(others), capacity - len(wanted))
        # To keep fewer never reads less.
        return len(wanted - resident) + min(
            least(step + 1, wanted | frozenset(kept)) for kept in combinations(others, keep)
        )

    assert belady(trace, capacity).reads.sum() == least(0, frozenset())
