"""The means of decisions."""

from __future__ import annotations

from dsr.bench.reason.judge import StrategyDecision, score
from dsr.bench.reason.rows import StrategyRow

ROW = StrategyRow("direct", "direct", "shared", 1)


def decision(
    problem: str, correct: float, spent: float = 10, sequential: float = 5, seconds: float = 1
) -> StrategyDecision:
    return StrategyDecision("direct", problem, (0,), "1", correct, False, spent, sequential, seconds)


def test_a_problem_counts_once_however_often_it_was_decided() -> None:
    made = score(ROW, [decision("a", 1, 10), decision("a", 1, 30), decision("b", 0, 40, 20, 3)])
    assert made is not None
    assert (made.problems, made.decisions, made.accuracy) == (2, 3, 0.5)
    assert (made.tokens, made.tokens_total, made.sequential, made.seconds) == (30, 60, 12.5, 2)


def test_nothing_has_no_score() -> None:
    assert score(ROW, []) is None
