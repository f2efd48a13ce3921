"""Traces of experts: from tokens to passes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.routing.trace import Trace, of_tokens

CHOSEN = np.array([[[0, 1], [2, 3]], [[0, 2], [2, 3]], [[1, 0], [0, 1]]])  # 3 tokens, 2 layers, 2 active


def test_each_token_is_a_pass_of_its_own() -> None:
    trace = of_tokens(CHOSEN, 4)
    assert (trace.passes, trace.layers, trace.experts, trace.units, trace.active) == (3, 2, 4, 8, 2)
    assert trace.counts[1].tolist() == [[1, 0, 1, 0], [0, 0, 1, 1]]
    assert trace.needed(1, 1).tolist() == [6, 7]
    assert trace.most_at_once == 2


def test_a_pass_may_take_several_tokens() -> None:
    trace = of_tokens(CHOSEN, 4, passes=[2, 1])
    assert trace.counts.tolist() == [[[2, 1, 1, 0], [0, 0, 2, 2]], [[1, 1, 0, 0], [1, 1, 0, 0]]]
    assert trace.most_at_once == 3


@pytest.mark.parametrize(
    ("counts", "active", "problem"),
    [
        (np.ones((2, 3), int), 1, "shape"),
        (np.full((1, 1, 4), -1), 1, "shape"),
        (np.ones((1, 1, 4), int), 5, "do not fit"),
        (np.array([[[1, 1, 1, 0]]]), 2, "do not fit"),
        (np.array([[[2, 0, 0, 0]]]), 2, "chose less than 2"),
        (np.zeros((1, 1, 4), int), 2, "chose less than 2"),
    ],
)
def test_impossible_counts_are_refused(counts: np.ndarray, active: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Trace(counts, active)


def test_tokens_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="experts 0 to 3 of 3"):
        of_tokens(CHOSEN, 3)
    with pytest.raises(ValueError, match="passes of 4 tokens for 3"):
        of_tokens(CHOSEN, 4, passes=[4])
