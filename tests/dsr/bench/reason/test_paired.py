"""Strategies against each other on the same questions."""

from __future__ import annotations

import pytest

from dsr.bench.reason.judge import StrategyDecision, score
from dsr.bench.reason.paired import PairedDifference, best_vote, compare_rows, paired_interval
from dsr.bench.reason.rows import strategy_rows
from dsr.bench.reason.task_figures import by_task
from dsr.suites.problem import SuiteProblem

ROWS = strategy_rows(["greedy", "direct", "vote:n=2:stop=none", "vote:n=4:stop=none", "vote:n=4:stop=beta", "pass"], 4)


def decision(row: str, problem: int, correct: float, length: int = 10) -> StrategyDecision:
    right, wrong = ((length,), ()) if correct else ((), (length,))
    return StrategyDecision(row, str(problem), (0,), "1", correct, False, 10, 10, 1.0, "", right, wrong)


def test_a_difference_that_all_questions_show_is_one() -> None:
    low, high = paired_interval([1.0] * 30 + [0.0] * 70)
    assert 0.2 < low < 0.3 < high < 0.4
    low, high = paired_interval([1.0] * 6 + [-1.0] * 5 + [0.0] * 89)
    assert low < 0 < high


def test_the_same_differences_give_the_same_interval() -> None:
    differences = [0.5, -0.25, 0.0, 1.0, 0.0, -1.0, 0.5]
    assert paired_interval(differences) == paired_interval(differences)


@pytest.mark.parametrize(("differences", "bound"), [([], 1.0), ([0.0], 1.0), ([0.0] * 100, 0.03)])
def test_without_any_difference_nobody_can_tell(differences: list[float], bound: float) -> None:
    assert paired_interval(differences) == (-bound, bound)


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(0.01, 0.2, "gains"), (-0.2, -0.01, "loses"), (-0.1, 0.2, "cannot tell")]
)
def test_the_interval_decides(low: float, high: float, outcome: str) -> None:
    assert PairedDifference("direct", 0.1, low, high).outcome == outcome


def test_rows_are_compared_with_one_sample_greedy_and_the_best_vote() -> None:
    labels = [row.label for row in ROWS]
    right = {"greedy": 50, "direct": 20, "vote n=2 stop=none": 30, "vote n=4 stop=none": 60, "vote n=4 stop=beta": 58}
    found = [decision(label, n, float(n < right.get(label, 90))) for label in labels for n in range(100)]
    scores = [made for row in ROWS if (made := score(row, [each for each in found if each.row == row.label]))]
    assert best_vote(scores) == "vote n=4 stop=none"
    compared = {each.row: each for each in compare_rows(scores, found)}
    assert "pass@4 (oracle)" not in compared
    vote = compared["vote n=4 stop=none"]
    assert [(each.reference, round(each.mean, 2), each.outcome) for each in vote.differences] == [
        ("direct", 0.4, "gains"),
        ("greedy", 0.1, "gains"),
    ]
    assert [each.reference for each in compared["direct"].differences] == ["greedy", "vote n=4 stop=none"]
    against_vote = compared["vote n=4 stop=beta"].against("vote n=4 stop=none")
    assert against_vote is not None and against_vote.outcome == "cannot tell"


def test_several_decisions_about_a_question_count_as_their_mean() -> None:
    found = [decision("direct", 0, 1.0), decision("direct", 0, 0.0), decision("greedy", 0, 1.0)]
    scores = [made for row in ROWS if (made := score(row, [each for each in found if each.row == row.label]))]
    greedy = compare_rows(scores, found)[0]
    assert greedy.differences[0].mean == 0.5


def test_accuracy_and_lengths_by_task() -> None:
    problems = [SuiteProblem(str(n), "q", "1", task) for n, task in enumerate(("sums", "sums", "words"))]
    found = [
        decision("greedy", 0, 1.0), decision("greedy", 1, 0.0), decision("greedy", 2, 0.0),
        decision("direct", 0, 1.0, 10), decision("direct", 0, 0.0, 40), decision("direct", 1, 1.0, 20),
        decision("direct", 2, 0.0, 60),
    ]  # fmt: skip
    sums, words, every = by_task(problems, ROWS, found)
    assert (sums.task, sums.problems, sums.accuracy) == ("sums", 2, (("greedy", 0.5), ("direct", 0.75)))
    assert (sums.right, sums.wrong) == (15.0, 40.0) and (words.right, words.wrong) == (None, 60.0)
    assert (every.task, every.problems, every.right, every.wrong) == ("", 3, 15.0, 50.0)


def test_one_task_needs_no_line_of_its_own() -> None:
    [every] = by_task([SuiteProblem("0", "q", "1", "sums")], ROWS, [decision("direct", 0, 1.0)])
    assert every.task == ""
