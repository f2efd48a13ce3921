"""short-m with a scripted model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleNoted, ThoughtEnded
from runtime.base.types import Completion, SamplingParams
from runtime.strategies import short_m
from runtime.strategies.short_m import ShortMSettings
from runtime.strategies.verdict import Sample, Verdict
from tests.runtime.strategies.scripted import backend, completion, drain, sample, task

ANSWER = "\\boxed{%s}"


def reply(thought: int, answer: int, wait: int = 0) -> str:
    return f"<think>{'t' * thought}</think>{'x' * wait}{ANSWER % answer}"


def thought_of(completion: Completion, tokens: int) -> Completion:
    return replace(completion, thinking_tokens=tokens, thought_closed_by="model")


def told(*replies: str, slots: int = 8, **settings: Any) -> tuple[list[Event], Verdict]:
    fake = backend(lambda question, sample: replies[sample], slots=slots)
    settings.setdefault("n", len(replies))
    return drain(short_m.run(task(lambda question, sample: "", fake=fake), ShortMSettings(**settings)))


def test_the_first_thoughts_vote_and_finish_their_answers() -> None:
    # The first thought belongs to the longest answer.
    events, verdict = told(reply(2, 4, wait=60), reply(9, 5), reply(4, 4), reply(6, 4), reply(12, 5))
    assert (verdict.winner, verdict.confidence, verdict.tied) == ("4", 1.0, False)
    assert verdict.rule == "majority of the first 3 thoughts of 5"
    assert [each.completion.finish_reason for each in verdict.samples] == [
        "stop",
        "cancelled",
        "stop",
        "stop",
        "cancelled",
    ]
    # The tags have 7 and 8 letters: the third thought, of 6, is closed by the 21st token.
    assert [len(each.completion.tokens) for each in verdict.samples] == [86, 21, 28, 30, 21]
    note = "stopped: 3 thoughts were done"
    assert [each.note for each in verdict.samples] == ["", note, "", "", note]
    assert [each for each in events if isinstance(each, SampleNoted)] == [SampleNoted(1, note), SampleNoted(4, note)]
    assert [each.sample for each in events if isinstance(each, ThoughtEnded)] == [0, 2, 3]


def test_the_shortest_thought_alone() -> None:
    _, verdict = told(reply(8, 5), reply(2, 4, wait=30), m=1)
    assert (verdict.winner, verdict.rule) == ("4", "the first thought of 2")
    assert verdict.samples[0].note == "stopped: another thought was done"


def test_a_tie_goes_to_the_shortest_thought() -> None:
    _, verdict = told(reply(5, 6), reply(4, 5), reply(3, 4))
    assert (verdict.winner, verdict.tied) == ("4", True)
    assert (
        verdict.rule
        == "majority of the first 3 thoughts of 3; tie broken by the shorter thought, then by mean confidence"
    )


def test_of_thoughts_done_in_one_step_the_first_numbers_count() -> None:
    _, verdict = told(reply(3, 5), reply(3, 5), reply(3, 4), m=2)
    assert (verdict.winner, verdict.confidence) == ("5", 1.0)
    assert verdict.samples[2].completion.finish_reason == "cancelled"


def test_without_thoughts_the_first_to_finish_vote() -> None:
    _, verdict = told("xx" + ANSWER % 4, ANSWER % 4, "xxxx" + ANSWER % 5, "x" * 30 + ANSWER % 5)
    assert (verdict.winner, verdict.confidence) == ("4", 2 / 3)
    assert verdict.samples[3].completion.finish_reason == "cancelled"


def test_one_of_the_first_may_abstain() -> None:
    _, verdict = told("<think>t</think>I cannot.. say", reply(5, 4), reply(3, 4), reply(40, 5))
    assert (verdict.winner, verdict.abstained, verdict.tally[0].votes) == ("4", 1, 2)


def test_a_thought_closed_by_a_budget_is_done() -> None:
    fake = backend(
        lambda question, sample: "<think>" + "t" * 9 + ANSWER % 4 * 9 if sample < 2 else "<think>" + "t" * 90, slots=3
    )
    given = task(lambda question, sample: "", fake=fake)
    params = SamplingParams(think_budget=12, max_tokens=60)
    _, verdict = drain(short_m.run(replace(given, params=params), ShortMSettings(n=3, m=2)))
    assert [each.completion.thought_closed_by for each in verdict.samples[:2]] == ["budget", "budget"]
    assert verdict.samples[2].completion.finish_reason == "cancelled"


def test_full_draws_are_judged_by_their_thoughts() -> None:
    drawn = [
        Sample.of(thought_of(completion(n, ANSWER % answer, tokens=100 - n), thought))
        for n, (answer, thought) in enumerate([(5, 40), (4, 10), (4, 20), (5, 30)])
    ]
    verdict = short_m.judge(drawn, ShortMSettings(n=4))
    assert (verdict.winner, verdict.confidence) == ("4", 2 / 3)
    assert [each.weight for each in verdict.samples] == [0, 1, 1, 1]


def test_a_thought_that_ran_into_the_limit_comes_last() -> None:
    endless = sample(0, "", tokens=20, finish_reason="length")
    done = Sample.of(thought_of(completion(1, ANSWER % 4, tokens=90), 80))
    assert short_m.judge([endless, done], ShortMSettings(n=2, m=1)).winner == "4"


def test_an_interrupt_shows_what_is_there() -> None:
    replies = [reply(1, 4), reply(60, 5), reply(60, 5)]
    fake = backend(lambda question, sample: replies[sample], slots=3)
    fake.abort_after = 40
    _, verdict = drain(short_m.run(task(lambda question, sample: "", fake=fake), ShortMSettings(n=3)))
    assert (verdict.winner, verdict.tally[0].votes, verdict.rule) == ("4", 1, "the first thought of 3")
    assert [each.note for each in verdict.samples] == ["", "", ""]


@pytest.mark.parametrize("settings", [{"n": 0}, {"n": 2}, {"m": 0}])
def test_senseless_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        ShortMSettings(**settings)
