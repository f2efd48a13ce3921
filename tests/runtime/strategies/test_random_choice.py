"""Weighted choice without replacement, and softmax."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from runtime.strategies.random_choice import softmax, without_replacement


def test_softmax_does_not_overflow() -> None:
    assert softmax([0.0, 0.0]) == [0.5, 0.5]
    assert softmax([10_000.0, 0.0]) == [1.0, 0.0]
    assert softmax([]) == []


def test_nothing_is_drawn_twice_and_weight_decides() -> None:
    rng = random.Random(5)
    drawn = [without_replacement([0.6, 0.3, 0.1], 2, rng) for _ in range(4000)]
    assert all(len(set(each)) == 2 for each in drawn)
    firsts = Counter(each[0] for each in drawn)
    assert [firsts[index] / 4000 for index in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_weights_of_nothing_still_choose_and_there_may_be_too_few() -> None:
    assert sorted(without_replacement([1.0, 0.0, 0.0], 5, random.Random(1))) == [0, 1, 2]
    assert without_replacement([], 2, random.Random(1)) == []
