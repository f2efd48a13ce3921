"""Which lines a bench has, and what each decides about given samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsr.bench.reason.judge import StrategyDecision, blocks, decisions, saved_decision
from dsr.bench.reason.rows import StrategyRow, strategy_rows
from dsr.suites.judging import Judging
from dsr.suites.problem import Suite, SuiteProblem
from runtime.base.errors import UsageError
from runtime.base.types import Completion, TokenStatistics

PROBLEM = SuiteProblem("p", "6 * 7?", "42")
JUDGING = Judging(Suite("s", (PROBLEM,)))


def sample(number: int, answer: str | None, tokens: int = 10, seconds: float = 1.0) -> Completion:
    return Completion(
        sample=number,
        thinking="",
        answer=f"\\boxed{{{answer}}}" if answer is not None else "",
        tokens=(0,) * tokens,
        thinking_tokens=tokens // 2,
        finish_reason="stop",
        seconds=seconds,
        thought_closed_by="model",
        statistics=(TokenStatistics(-0.5, 4.0, 2.0),) * tokens,
    )


def only(spec: str, samples: int = 4) -> StrategyRow:
    [row] = strategy_rows([spec], samples)
    return row


def judged(spec: str, *answers: str | None, lengths: tuple[int, ...] = (10, 20, 30, 40)) -> list[StrategyDecision]:
    drawn = [sample(n, answer, length) for n, (answer, length) in enumerate(zip(answers, lengths, strict=False))]
    return list(decisions(only(spec), PROBLEM, drawn, JUDGING))


def test_without_a_choice_come_the_lines_that_share_samples() -> None:
    labels = [row.label for row in strategy_rows([], 4)]
    assert labels[:5] == ["greedy", "direct", "vote n=2 stop=none", "vote n=4 stop=none", "vote n=4 stop=beta"]
    assert "first-finish n=4" in labels and "short-m n=4" in labels
    assert labels[-2:] == ["pass@2 (oracle)", "pass@4 (oracle)"]
    assert {row.source for row in strategy_rows([], 4)} <= {"greedy", "shared", "coverage", "until-solved"}


def test_a_line_can_be_written_with_its_settings() -> None:
    row = only("vote:n=3:stop=esc")
    assert (row.label, row.source, row.size) == ("vote n=3 stop=esc", "shared", 3)
    assert strategy_rows(["direct", "direct"], 4) == strategy_rows(["direct"], 4)


def test_all_is_everything_and_more_can_stand_beside_it() -> None:
    labels = [row.label for row in strategy_rows(["all", "vote:n=3:stop=none"], 8)]
    assert {"greedy", "direct", "vote n=8 stop=none", "pass@8 (oracle)", "budget extensions=1"} <= set(labels)
    assert labels[-1] == "vote n=3 stop=none"


def test_one_sample_leaves_nothing_to_count() -> None:
    labels = [row.label for row in strategy_rows(["direct", "vote", "pass"], 1)]
    assert labels[0] == "direct" and "vote n=1 stop=beta" in labels and not any("pass@" in each for each in labels)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_few_samples_are_enough_for_the_usual_lines_and_for_all(samples: int) -> None:
    labels = [row.label for row in strategy_rows([], samples)]
    assert f"first-finish n={samples}" in labels and f"deepconf n={samples} warmup={(samples + 1) // 2}" in labels
    assert ("short-m n=3" if samples == 3 else f"short-m n={samples} m={samples}") in labels
    assert {*labels} <= {row.label for row in strategy_rows(["all"], samples)}


@pytest.mark.parametrize(
    ("spec", "samples", "told"),
    [
        ("pass", 1, "pass needs several samples, and 1 is drawn"),
        ("votes", 8, "there is no strategy 'votes'"),
        ("vote:n=9", 8, "vote n=9 needs 9 samples, and 8 are drawn"),
        ("vote:size=9", 8, "vote has no setting 'size'"),
        ("monkeys:n=4:check=true", 8, "repeated-sampling: a bench uses the suite's answers"),
        ("greedy:n=2", 8, "greedy has no settings"),
        ("vote:n", 8, "a setting is written KEY=VALUE, not 'n'"),
        ("direct", 0, "samples for each problem: choose 1 to 255"),
        ("direct", 256, "samples for each problem: choose 1 to 255"),
    ],
)
def test_what_cannot_be_a_line(spec: str, samples: int, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        strategy_rows([spec], samples)
    assert told in raised.value.message


def test_each_sample_alone_is_a_saved_decision_direct() -> None:
    found = judged("direct", "42", "41", None, "42.0")
    assert [(each.samples, each.winner, each.correct, each.spent) for each in found] == [
        ((0,), "42", 1.0, 10),
        ((1,), "41", 0.0, 20),
        ((2,), None, 0.0, 30),
        ((3,), "42.0", 1.0, 40),
    ]


def test_a_vote_of_fewer_is_taken_as_often_as_there_are_samples_for_it() -> None:
    first, second = judged("vote:n=2:stop=none", "42", "42", "41", "41")
    assert (first.samples, first.winner, first.correct, first.spent, first.sequential) == ((0, 1), "42", 1.0, 30, 20)
    assert (second.samples, second.winner, second.correct, second.spent) == ((2, 3), "41", 0.0, 70)
    assert [list(block) for block in blocks([sample(n, "1") for n in range(5)], 2)] == [
        [sample(0, "1"), sample(1, "1")],
        [sample(2, "1"), sample(3, "1")],
    ]


def test_the_seconds_of_shared_samples_are_those_of_their_chain() -> None:
    drawn = [sample(0, "42", tokens=10, seconds=2.0), sample(1, "42", tokens=30, seconds=4.0)]
    [found] = decisions(only("vote:n=2:stop=none", 2), PROBLEM, drawn, JUDGING)
    assert found.seconds == 30 * 6.0 / 40


def test_first_finish_pays_for_the_others_until_then() -> None:
    [found] = judged("first-finish:n=4", "41", "42", "42", "42")
    # The end is a step too, in which the others grow once more.
    assert (found.winner, found.correct, found.sequential, found.spent) == ("41", 0.0, 11, 43)


def test_monkeys_stop_at_the_first_that_the_key_says_is_right() -> None:
    [found] = judged("monkeys", "41", "42", "42", "7")
    assert (found.row, found.winner, found.correct) == ("monkeys n=4 (oracle)", "42", 1.0)
    assert (found.spent, found.sequential) == (10 + 20 + 20 + 20, 20)
    [unsolved] = judged("monkeys", "41", None, "43", "7")
    assert (unsolved.winner, unsolved.correct, unsolved.spent, unsolved.sequential) == (None, 0.0, 100, 40)


def test_coverage_is_the_unbiased_estimate() -> None:
    [found] = decisions(
        strategy_rows(["pass"], 4)[0], PROBLEM, [sample(n, a) for n, a in enumerate(["42", "1", "2", "3"])], JUDGING
    )
    assert (found.row, found.correct, found.spent, found.winner) == ("pass@2 (oracle)", 0.5, 20, None)
    assert found.rule == "1 of 4 are right"


def test_greedy_is_its_own_sample() -> None:
    [found] = decisions(only("greedy"), PROBLEM, [sample(0, "42", 12, 3.0)], JUDGING)
    assert (found.row, found.winner, found.correct, found.spent, found.seconds) == ("greedy", "42", 1.0, 12, 3.0)


def test_a_saved_decision_comes_back_and_is_held_against_the_key_again() -> None:
    [found] = judged("vote:n=4:stop=none", "42", "42", "41", "7")
    assert (found.right, found.wrong) == ((10, 20), (30, 40))
    back = saved_decision(only("vote:n=4:stop=none"), PROBLEM, found.json(), JUDGING)
    assert back == replace(found, right=(), wrong=())
    other = SuiteProblem("p", "6 * 7?", "41")
    assert saved_decision(only("vote:n=4:stop=none"), other, found.json(), Judging(Suite("o", (other,)))).correct == 0.0
