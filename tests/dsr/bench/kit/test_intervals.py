"""95 % intervals."""

from __future__ import annotations

import pytest

from dsr.bench.kit.intervals import mean_interval, wilson


def test_wilson_s_interval() -> None:
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    assert [round(end, 4) for end in wilson(81 / 263, 263)] == [0.2553, 0.3662]
    assert [round(end, 4) for end in wilson(15 / 148, 148)] == [0.0624, 0.1605]
    assert [round(end, 4) for end in wilson(0, 20)] == [0.0, 0.1611]
    assert [round(end, 4) for end in wilson(1 / 29, 29)] == [0.0061, 0.1718]


def test_one_saved_decision_each_problem_is_wilson_s() -> None:
    assert mean_interval([1.0] * 8 + [0.0] * 2, 10) == pytest.approx(wilson(0.8, 10))
    assert mean_interval([1.0] * 5, 5) == wilson(1.0, 5)
    assert mean_interval([0.5], 1) == wilson(0.5, 1)


def test_several_decisions_count_for_more_unless_they_are_all_alike() -> None:
    assert mean_interval([1.0] * 8 + [0.0] * 2, 40) == pytest.approx(wilson(0.8, 10))
    # The standard error of these means is sqrt(0.03 / 4): as of 25 trials.
    assert mean_interval([1.0, 1.0, 0.75, 0.25], 40) == pytest.approx(wilson(0.75, 0.75 * 0.25 / (0.375 / 16)))
    # Means that differ by less than chance would have it are no better than independent decisions.
    assert mean_interval([0.8, 0.8, 0.8, 0.7], 40) == pytest.approx(wilson(0.775, 40))
    # When all are right, nothing tells how much alike the decisions about a problem are.
    assert mean_interval([1.0] * 5, 40) == wilson(1.0, 5)
