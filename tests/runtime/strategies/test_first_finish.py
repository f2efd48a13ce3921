"""First Finish Search with a scripted model."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.base.errors import UsageError
from runtime.base.events import Event, Notice, SampleNoted
from runtime.strategies import first_finish
from runtime.strategies.first_finish import FirstFinishSettings
from runtime.strategies.verdict import Verdict
from tests.runtime.strategies.scripted import backend, drain, sample, task

ANSWER = "\\boxed{%s}"


def told(
    *replies: str, slots: int = 8, family: str = "", limit: int | None = None, **settings: Any
) -> tuple[list[Event], Verdict]:
    fake = backend(lambda question, sample: replies[sample], slots=slots)
    settings.setdefault("n", len(replies))
    given = task(lambda question, sample: "", fake=fake, family=family)
    return drain(first_finish.run(given, FirstFinishSettings(**settings)))


def test_the_first_that_finishes_wins_and_stops_the_others() -> None:
    events, verdict = told("x" * 30 + ANSWER % 5, "x" * 3 + ANSWER % 4, "x" * 30 + ANSWER % 5)
    assert (verdict.winner, verdict.confidence, verdict.tied) == ("4", 1.0, False)
    assert verdict.rule == "the first of 3 to finish with an answer"
    # Twelve tokens and the step in which the end is drawn, in which the others grow by one more.
    assert [len(each.completion.tokens) for each in verdict.samples] == [13, 12, 13]
    assert (verdict.spent, verdict.sequential) == (38, 13)
    note = "stopped: another finished first"
    assert [each.note for each in verdict.samples] == [note, "", note]
    assert [each for each in events if isinstance(each, SampleNoted)] == [SampleNoted(0, note), SampleNoted(2, note)]


def test_to_finish_is_to_end_the_reply_not_the_thought() -> None:
    _, verdict = told("<think>a</think>" + "y" * 40 + ANSWER % 5, "<think>a longer thought</think>" + ANSWER % 4)
    assert verdict.winner == "4"


def test_a_sample_without_an_answer_is_passed_over() -> None:
    _, verdict = told("I cannot say.. hm", "x" * 20 + ANSWER % 4, "x" * 60 + ANSWER % 5)
    assert (verdict.winner, verdict.abstained) == ("4", 1)
    assert verdict.chosen is not None and verdict.chosen.sample == 1


def test_of_two_that_finish_in_one_step_the_first_number_counts() -> None:
    _, verdict = told(ANSWER % 5, ANSWER % 4, "x" * 20)
    assert (verdict.winner, verdict.confidence) == ("5", 1.0)
    assert [(each.answer, each.weight, each.note) for each in verdict.samples[:2]] == [
        ("5", 1, ""),
        ("4", 0, "too late"),
    ]


def test_the_first_k_vote() -> None:
    _, verdict = told("xxx" + ANSWER % 4, "x" + ANSWER % 5, "xxxx" + ANSWER % 4, "x" * 50 + ANSWER % 5, k=3)
    assert (verdict.winner, verdict.confidence) == ("4", 2 / 3)
    assert verdict.rule == "majority of the first 3 of 4 to finish with an answer"
    assert verdict.samples[3].note == "stopped: 3 others finished first"


def test_a_tie_of_the_first_goes_to_the_shorter_thought() -> None:
    _, verdict = told("<think>longer</think>" + ANSWER % 5, "<think>short</think>" + ANSWER % 4, k=2)
    assert (verdict.winner, verdict.tied) == ("4", True)
    assert "tie broken by the shorter thought" in verdict.rule


def test_with_fewer_slots_the_waiting_are_never_begun() -> None:
    _, verdict = told("x" * 20 + ANSWER % 5, "xx" + ANSWER % 4, ANSWER % 5, ANSWER % 5, slots=2)
    assert verdict.winner == "4"
    assert [len(each.completion.tokens) for each in verdict.samples] == [12, 11, 0, 0]


def test_nobody_finishing_with_an_answer_is_no_winner() -> None:
    _, verdict = told("I cannot say.. hm", "Not.. really, no idea")
    assert (verdict.winner, verdict.abstained, verdict.rule) == (None, 2, "none of 2 to finish with an answer")
    assert verdict.chosen is not None


def test_a_sample_at_its_limit_counts_when_nobody_finished() -> None:
    drawn = [sample(0, ANSWER % 4, tokens=30, finish_reason="length"), sample(1, "no answer, sorry", tokens=9)]
    assert first_finish.judge(drawn, FirstFinishSettings(n=2)).winner == "4"
    finished = sample(2, ANSWER % 5, tokens=40)
    assert first_finish.judge([*drawn, finished], FirstFinishSettings(n=3)).winner == "5"


def test_full_draws_are_judged_by_their_length() -> None:
    drawn = [
        sample(n, ANSWER % answer, tokens=tokens)
        for n, (answer, tokens) in enumerate([(4, 9), (5, 7), (4, 8), (5, 20)])
    ]
    assert first_finish.judge(drawn, FirstFinishSettings(n=4)).winner == "5"
    assert first_finish.judge(drawn, FirstFinishSettings(n=4, k=3)).winner == "4"


def test_an_interrupt_shows_what_is_there() -> None:
    fake = backend(lambda question, sample: "x" * 30, slots=2)
    fake.abort_after = 5
    _, verdict = drain(first_finish.run(task(lambda question, sample: "", fake=fake), FirstFinishSettings(n=2)))
    assert (verdict.winner, [each.note for each in verdict.samples]) == (None, ["", ""])
    assert verdict.chosen is not None


def test_families_whose_short_replies_are_worse_are_warned_of() -> None:
    events, _ = told(ANSWER % 4, family="qwen3")
    [notice] = [each.text for each in events if isinstance(each, Notice)]
    assert notice == "first-finish makes qwen3 models worse, whose short replies are rash; short-m suits them"
    assert not [each for each in told(ANSWER % 4, family="deepseek-r1")[0] if isinstance(each, Notice)]


@pytest.mark.parametrize("settings", [{"n": 0}, {"n": 4, "k": 5}, {"k": 0}])
def test_senseless_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        FirstFinishSettings(**settings)
