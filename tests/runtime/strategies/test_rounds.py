"""Think Twice, by what each round is asked and which answer stands."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.strategies import rounds
from tests.runtime.strategies.scripted import backend, drain, sample, task


def test_only_the_last_answer_is_carried_over() -> None:
    asked = []

    def script(question: str, sample: int) -> str:
        asked.append(question)
        return f"<think>thought {sample}</think>The answer is \\boxed{{{sample + 3}}}."

    _, verdict = drain(rounds.run(task(script, "{x}?"), rounds.RoundsSettings(n=3)))
    told = "The assistant's previous answer is: <answer> The answer is \\boxed{%d}. </answer>, and please re-answer."
    assert list(dict.fromkeys(asked)) == ["{x}?", "{x}?\n" + told % 3, "{x}?\n" + told % 4]
    assert (verdict.winner, verdict.tied, verdict.confidence) == ("5", False, 1.0)
    assert verdict.chosen is not None and verdict.chosen.sample == 2
    assert verdict.spent == verdict.sequential == sum(len(each.completion.tokens) for each in verdict.samples)
    assert verdict.rule == "the last answer that was given, in round 3 of 3"
    assert verdict.unit == "turn"


def test_the_last_round_that_gave_an_answer_counts() -> None:
    verdict = rounds.judge([sample(0, "\\boxed{7}"), sample(1, "\\boxed{8}"), sample(2, "I am not sure.")])
    assert (verdict.winner, verdict.abstained) == ("8", 1)
    assert verdict.chosen is not None and verdict.chosen.sample == 1
    assert rounds.judge([sample(0, "")]).winner is None


def test_a_round_without_an_answer_carries_nothing() -> None:
    asked = []

    def script(question: str, sample: int) -> str:
        asked.append(question)
        return "<think>no end" if sample == 0 else "4"

    drain(rounds.run(task(script), rounds.RoundsSettings(n=2)))
    assert set(asked) == {"How many?"}


def test_a_stop_ends_the_rounds() -> None:
    fake = backend(lambda question, sample: "\\boxed{5}")
    fake.abort_after = 6
    _, verdict = drain(rounds.run(task(lambda question, sample: "", fake=fake), rounds.RoundsSettings(n=3)))
    assert verdict.winner is None
    assert [each.completion.finish_reason for each in verdict.samples] == ["cancelled"]


def test_there_is_at_least_one_round() -> None:
    with pytest.raises(UsageError, match="not 0"):
        rounds.RoundsSettings(n=0)
