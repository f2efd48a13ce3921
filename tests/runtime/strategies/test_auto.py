"""The choice of a strategy, rule by rule, and the budgets it keeps."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.base.events import Notice, SampleFinished
from runtime.base.types import SamplingParams
from runtime.strategies import auto, direct, first_finish, short_m, vote
from runtime.strategies.auto import AutoSettings, Budget, choose, kind_of
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
    assert (choice.strategy, choice.settings, choice.limit) == ("direct", direct.DirectSettings(), None)
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
    assert (choice.settings, choice.limit) == (first_finish.FirstFinishSettings(n=6), 1500)


def test_a_budget_is_shared_by_the_samples() -> None:
    assert choose(STORY, slots=8, thinks=True, tokens=4000).settings == direct.DirectSettings()
    assert choose(STORY, slots=8, thinks=True, tokens=4000).limit == 4000
    choice = choose(STORY, slots=8, thinks=False, tokens=1000)
    assert (choice.settings, choice.limit) == (vote.VoteSettings(n=3), 333)
    assert choose(STORY, slots=8, tokens_in_time=600).limit == 300
    assert choose(STORY, slots=1, tokens_in_time=600).strategy == "direct"


def test_most_of_a_limit_is_for_the_thought() -> None:
    found = auto.within(SamplingParams(max_tokens=900, think_budget=100), 400, thinks=True)
    assert (found.max_tokens, found.think_budget) == (400, 100)
    found = auto.within(SamplingParams(max_tokens=100), 400, thinks=True)
    assert (found.max_tokens, found.think_budget) == (100, 75)
    found = auto.within(SamplingParams(), 400, thinks=False)
    assert (found.max_tokens, found.think_budget) == (400, None)


@pytest.mark.parametrize(("text", "budget"), [("", Budget()), ("4000", Budget(4000)), (" 2.5S ", Budget(None, 2.5))])
def test_budgets_are_of_tokens_or_seconds(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["0", "0s", "-3", "4k", "s", "1e3", "30 m", "nan"])
def test_anything_else_is_no_budget(text: str) -> None:
    with pytest.raises(UsageError, match="is not a budget") as caught:
        AutoSettings(budget=text)
    assert caught.value.hint == "as in budget=4000 for tokens, or budget=30s for seconds"


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
    _, verdict = drain(auto.run(task(long, STORY), AutoSettings(budget="100")))
    assert verdict.spent <= 100
    assert [each.completion.thought_closed_by for each in verdict.samples] == ["budget"]


class Clock:
    """A second passes with each look."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        self.time += 1.0
        return self.time


def test_when_the_time_is_over_what_runs_is_stopped() -> None:
    def endless(question: str, sample: int) -> str:
        return "so on " * 1000

    events, verdict = drain(auto.run(task(endless, STORY), AutoSettings(budget="120s"), now=Clock()))
    assert any(event == Notice("auto: the time is over") for event in events)
    # The first 32 tokens were drawn to measure.
    drawn = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert len(drawn[0].tokens) == 32
    assert {each.finish_reason for each in drawn[1:]} == {"cancelled"}
    assert verdict.spent == sum(len(each.tokens) for each in drawn)


def test_a_reply_that_ends_while_the_speed_is_measured_is_the_answer() -> None:
    _, verdict = drain(
        auto.run(task(lambda question, sample: "\\boxed{5}", STORY), AutoSettings(budget="9s"), now=Clock())
    )
    assert (verdict.winner, verdict.strategy, len(verdict.samples)) == ("5", "auto", 1)


@pytest.mark.parametrize("budget", ["", "50s"])
def test_a_stop_leaves_what_there_is(budget: str) -> None:
    fake = backend(long)
    fake.abort_after = 20
    _, verdict = drain(auto.run(task(long, STORY, fake=fake), AutoSettings(budget=budget), now=Clock()))
    assert verdict.winner is None
    assert {each.completion.finish_reason for each in verdict.samples} == {"cancelled"}
