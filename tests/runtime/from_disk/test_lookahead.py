"""Guesses of router scores, corrected by what the routers then said."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.from_disk.lookahead import Lookahead


def scores(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_nothing_is_corrected_before_a_router_was_met() -> None:
    lookahead = Lookahead(2, 3)
    assert lookahead.guess(1, scores([1, 2, 3])).tolist() == [[1, 2, 3]]
    assert lookahead.guess(1, scores([3, 2, 1])).tolist() == [[3, 2, 1]]


def test_a_constant_error_is_corrected_by_a_tenth_for_each_token() -> None:
    lookahead = Lookahead(2, 2)
    for _ in range(2):
        lookahead.guess(1, scores([0, 0]))
        lookahead.met(1, scores([1, -1]))
    assert lookahead.guess(1, scores([0, 0]))[0] == pytest.approx([0.19, -0.19])
    assert lookahead.guess(0, scores([0, 0]))[0] == pytest.approx([0, 0])


def test_many_tokens_at_once_correct_as_much_as_one_after_the_other() -> None:
    together, apart = Lookahead(1, 2), Lookahead(1, 2)
    together.guess(0, scores(*[[0, 0]] * 8))
    together.met(0, scores(*[[1, 2]] * 8))
    for _ in range(8):
        apart.guess(0, scores([0, 0]))
        apart.met(0, scores([1, 2]))
    zero = scores([0, 0])
    assert together.guess(0, zero)[0] == pytest.approx(apart.guess(0, zero)[0])


@pytest.mark.parametrize("met", [[[1.0, 1.0]], [], [[np.nan, 1.0], [1.0, 1.0]]])
def test_scores_of_other_tokens_and_numbers_that_are_not_finite_correct_nothing(met: list[list[float]]) -> None:
    lookahead = Lookahead(1, 2)
    lookahead.guess(0, scores([0, 0], [0, 0]))
    lookahead.met(0, np.array(met, np.float32).reshape(-1, 2))
    assert lookahead.guess(0, scores([0, 0]))[0].tolist() == [0, 0]


def test_scores_that_were_not_guessed_correct_nothing() -> None:
    lookahead = Lookahead(1, 2)
    lookahead.met(0, scores([5, 5]))
    assert lookahead.guess(0, scores([0, 0]))[0].tolist() == [0, 0]
