"""The choice of a strategy, rule by rule, and the budgets it keeps."""

from __future__ import annotations

import pytest

from runtime.base.events import Notice, SampleFinished
from runtime.strategies import auto, direct, first_finish, short_m, vote
from runtime.strategies.auto import AutoSettings, choose, kind_of
from runtime.strategies.measured import Measured, Row
from runtime.strategies.strategy import find
from tests.runtime.strategies.scripted import backend, drain, task

STORY = "Ned buys 4 boxes of 7 shells and gives 7 to Hal. How many shells does Ned have now?"


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("hello there", "greeting"),
        ("What is the capital of France?", "fact"),
        ("Who wrote Faust?", "fact"),
        ("What is 17 * 23?", "sum"),
        ("3+4=", "sum"),
        ("Calculate (3 + 4) * 12 - 7 / 9 + 14", "reasoning"),
        ("Write a poem about 4 cats", "writing"),
        ("Explain how a heap works.", "writing"),
        (STORY, "reasoning"),
        ("Which of the six people that sit at the table is the oldest one?", "reasoning"),
        ("If today is Tuesday, which weekday was 31 days before?", "reasoning"),
        ("", "greeting"),
        ("1 . " * 20_000 + "x", "reasoning"),
    ],
)
def test_questions_are_told_apart_by_simple_signs(question: str, kind: str) -> None:
    assert kind_of(question) == kind


def test_what_needs_no_vote_is_answered_at_once() -> None:
    choice = choose("What is the capital of France?", slots=8)
    assert (choice.strategy, choice.settings) == ("direct", direct.DirectSettings())
    assert choice.why == "auto: a question of fact needs no vote, one sample answers it"


def test_reasoning_is_voted_on_with_the_slots_that_fit() -> None:
    assert choose(STORY, slots=8).settings == vote.VoteSettings(n=8)
    assert choose(STORY, slots=5).settings == vote.VoteSettings(n=5)
    assert choose(STORY, slots=64).settings == vote.VoteSettings(n=8)
    assert choose(STORY, slots=1).settings == vote.VoteSettings(n=4)
    assert choose(STORY, slots=2).strategy == "direct"


def test_long_horizon_models_are_never_taken_at_their_first_word() -> None:
    for tokens in (None, 20_000):
        choice = choose(STORY, family="qwen3", slots=8, thinks=True, tokens=tokens)
        assert choice.settings == short_m.ShortMSettings(n=8, m=3)
        assert "not first-finish" in choice.why
    assert choose(STORY, family="deepseek-r1", slots=8, thinks=True).strategy == "vote"
    choice = choose(STORY, family="deepseek-r1", slots=8, thinks=True, tokens=9000)
    assert choice.settings == first_finish.FirstFinishSettings(n=6)


def test_a_small_budget_is_for_one_sample() -> None:
    assert choose(STORY, slots=8, thinks=True, tokens=4000).settings == direct.DirectSettings()
    assert choose(STORY, slots=8, thinks=False, tokens=1000).settings == vote.VoteSettings(n=3)
    assert choose(STORY, slots=8, tokens_in_time=600).settings == vote.VoteSettings(n=8)
    assert choose(STORY, slots=8, tokens_in_time=599).strategy == "direct"
    assert choose(STORY, slots=1, tokens_in_time=600).strategy == "direct"


def figures(**rows: float) -> Measured:
    listed = {"greedy": 25.0, "direct": 15.4, **rows}
    return Measured("m", 1, False, "s", 60, tuple(Row(label, right, 1) for label, right in listed.items()))


def test_a_vote_that_gained_nothing_on_such_a_model_is_not_held() -> None:
    found = figures(**{"vote n=4 stop=none": 24.2, "vote n=8 stop=none": 36.7})
    assert choose(STORY, slots=8, measured=found).settings == vote.VoteSettings(n=8)
    plan = choose(STORY, slots=5, measured=found)
    assert (plan.strategy, plan.greedy) == ("direct", True)
    assert plan.why == (
        "auto: a vote of 5 gained nothing on m, the measured model most like this one, one sample answers, greedily: "
        "25 % right instead of 15 on m"
    )
    assert choose(STORY, slots=8, tokens=500, measured=found).greedy
    assert not choose(STORY, slots=8, tokens=500).greedy
    assert not choose("Write a poem about 4 cats", measured=found).greedy


def test_what_was_measured_to_be_worse_than_the_vote_is_not_chosen() -> None:
    found = figures(**{"vote n=8 stop=none": 36.7, "short-m n=8": 18.3, "first-finish n=8": 6.7})
    assert choose(STORY, family="qwen3", slots=8, measured=found).strategy == "vote"
    assert choose(STORY, family="deepseek-r1", slots=8, tokens=9000, measured=found).strategy == "vote"


def long(question: str, sample: int) -> str:
    return f"<think>{'hm ' * 40}</think>\\boxed{{5}}"


def test_the_choice_is_told_and_carried_out() -> None:
    events, verdict = drain(auto.run(task(long, STORY), AutoSettings()))
    assert (verdict.winner, verdict.strategy) == ("5", "auto")
    assert verdict.rule.startswith("vote: ")
    assert [event.text for event in events if isinstance(event, Notice)] == [
        "auto: a vote of at most 4 (4 slots fit), stopped when it is clear"
    ]


def test_a_budget_of_tokens_is_kept_by_thinking_less() -> None:
    _, verdict = drain(find("auto").configured(["budget=100"]).run(task(long, STORY)))
    assert verdict.spent <= 100
    assert [each.completion.thought_closed_by for each in verdict.samples] == ["budget"]


def test_the_pace_is_measured_for_a_limit_of_time() -> None:
    events, verdict = drain(find("auto").configured(["budget=500s"]).run(task(long, STORY)))
    drawn = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert len(drawn[0].tokens) == 32
    assert verdict.spent == sum(len(each.tokens) for each in drawn)
    assert verdict.winner == "5"


def test_a_reply_that_ends_while_the_pace_is_measured_is_the_answer() -> None:
    _, verdict = drain(find("auto").configured(["budget=9s"]).run(task(lambda question, sample: "\\boxed{5}", STORY)))
    assert (verdict.winner, verdict.strategy, len(verdict.samples)) == ("5", "auto", 1)


@pytest.mark.parametrize("budget", [(), ("budget=500s",)])
def test_a_stop_leaves_what_there_is(budget: tuple[str, ...]) -> None:
    fake = backend(long)
    fake.abort_after = 20
    _, verdict = drain(find("auto").configured(budget).run(task(long, STORY, fake=fake)))
    assert verdict.winner is None
    assert {each.completion.finish_reason for each in verdict.samples} == {"cancelled"}
