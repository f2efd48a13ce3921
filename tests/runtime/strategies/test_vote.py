"""Self-consistency with a scripted model: who wins, when drawing stops, and what it cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleFinished, SampleNoted
from runtime.base.types import Completion, TokenStatistics
from runtime.strategies import vote
from runtime.strategies.verdict import Sample, Verdict
from runtime.strategies.vote import VoteSettings, borda, next_wave, settled, stays_ahead, weighed
from tests.fakes import FakeBackend
from tests.runtime.strategies.scripted import backend, drain, task


def voted(replies: str | list[str], *, slots: int = 8, fake: FakeBackend | None = None, **settings: Any) -> Verdict:
    """The verdict of samples that say one letter each ("-" says nothing), or these replies."""
    return told(replies, slots=slots, fake=fake, **settings)[1]


def told(
    replies: str | list[str], *, slots: int = 8, fake: FakeBackend | None = None, **settings: Any
) -> tuple[list[Event], Verdict]:
    fake = fake or speaking(replies, slots)
    settings.setdefault("n", len(replies))
    return drain(vote.run(task(lambda question, sample: "", fake=fake), VoteSettings(**settings)))


def speaking(replies: str | list[str], slots: int = 8) -> FakeBackend:
    said = [spoken(each) for each in replies] if isinstance(replies, str) else replies
    return backend(lambda question, sample: said[sample], slots=slots)


def spoken(answer: str) -> str:
    return "No idea, sorry." if answer == "-" else f"\\boxed{{{answer}}}"


def answered(answers: str) -> list[Sample]:
    return [Sample.of(Completion(n, "", spoken(each), (1,), 0, "stop", 0.1)) for n, each in enumerate(answers)]


def made(
    number: int, answer: str, p: float = 0.5, confidences: list[float] | None = None, certainty: float = 1.0
) -> Completion:
    statistics = tuple(TokenStatistics(math.log(p), each, certainty) for each in confidences or [1.0] * 4)
    return Completion(number, "", f"\\boxed{{{answer}}}", (1,) * len(statistics), 0, "stop", 0.1, statistics=statistics)


# Who wins


def test_the_majority_wins() -> None:
    verdict = voted("45-4644-", stop="none")
    assert (verdict.winner, verdict.confidence, verdict.abstained, verdict.tied) == ("4", 4 / 6, 2, False)
    assert verdict.rule == "majority of 8"
    assert [each.completion.sample for each in verdict.samples] == list(range(8))


def test_a_tie_is_marked_and_the_rule_says_how_it_was_broken() -> None:
    replies = ["<think>longer</think>\\boxed{4}", "<think>short</think>\\boxed{5}"]
    verdict = voted(replies, stop="none")
    assert (verdict.winner, verdict.tied, verdict.confidence) == ("5", True, 0.5)
    assert verdict.rule == "majority of 2; tie broken by mean confidence, then by the shorter thought"


def test_all_different_is_a_tie_of_all() -> None:
    verdict = voted("34567", stop="none")
    assert (verdict.tied, verdict.confidence, len(verdict.tally)) == (True, 0.2, 5)
    assert verdict.chosen is not None and verdict.winner in verdict.chosen.answer


def test_nobody_wins_when_all_abstain_and_a_reply_is_still_shown() -> None:
    verdict = voted("----")
    assert (verdict.winner, verdict.abstained, verdict.confidence, verdict.tally) == (None, 4, 0.0, ())
    assert verdict.chosen is not None and verdict.chosen.answer == "No idea, sorry."


def test_one_sample_is_its_own_majority() -> None:
    assert voted("7").winner == "7"


def test_more_samples_than_slots_come_in_turns() -> None:
    fake = speaking("4454445444", slots=3)
    verdict = voted("", fake=fake, n=10, stop="none")
    assert (verdict.winner, verdict.tally[0].votes) == ("4", 8)
    assert max(each.completion.slots for each in verdict.samples) == 3


def test_more_samples_than_the_cache_holds_come_in_turns() -> None:
    replies = ["x" * 40 + spoken(answer) for answer in "44544"]
    fake = backend(lambda question, sample: replies[sample], slots=5, context=150)
    verdict = voted(replies, fake=fake, stop="none")
    assert (verdict.winner, verdict.tally[0].votes, verdict.spent) == ("4", 4, 5 * 49)


def test_the_seed_is_the_base_and_the_sample_number() -> None:
    verdict = voted("4567", stop="none")
    assert [each.answer for each in verdict.samples] == ["4", "5", "6", "7"]


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("stop", ["none", "beta", "esc", "certain"])
def test_the_same_seed_and_slots_give_the_same_verdict(stop: str, slots: int) -> None:
    first, second = (voted("45454-44", slots=slots, stop=stop, window=3) for _ in range(2))
    assert outcome(first) == outcome(second)


def outcome(verdict: Verdict) -> tuple[object, ...]:
    samples = [(each.answer, each.weight, each.note, each.completion.tokens) for each in verdict.samples]
    return verdict.winner, verdict.tally, verdict.rule, verdict.spent, verdict.sequential, samples


# Stopped by the user


def test_an_interrupt_ends_the_vote_with_what_is_there() -> None:
    replies = ["x" * 5 + spoken("4"), "x" * 40 + spoken("5"), "x" * 50 + spoken("5")]
    fake = speaking(replies)
    fake.abort_after = 30
    verdict = voted(replies, fake=fake, stop="none", n=3)
    assert (verdict.winner, verdict.rule, verdict.abstained) == ("4", "majority of 1", 0)
    assert [each.completion.finish_reason for each in verdict.samples] == ["stop", "cancelled", "cancelled"]
    assert [each.note for each in verdict.samples] == ["", "", ""]
    assert verdict.chosen is not None and verdict.chosen.sample == 0


def test_an_interrupt_ends_the_later_waves_too() -> None:
    fake = speaking("45454545")
    fake.abort_after = 5
    verdict = voted("45454545", fake=fake)
    assert (verdict.winner, len(verdict.samples)) == (None, 4)
    assert verdict.chosen is not None and verdict.chosen.finish_reason == "cancelled"


def test_an_interrupt_while_the_prompt_is_read_is_a_verdict_too() -> None:
    fake = speaking("44")
    fake.abort_after = 0
    verdict = voted("44", fake=fake)
    assert (verdict.winner, verdict.spent, verdict.sequential) == (None, 0, 0)


# Weights


def test_a_vote_weighs_its_probability() -> None:
    cast = [Sample.of(made(0, "4", p=0.3)), Sample.of(made(1, "4", p=0.3)), Sample.of(made(2, "5", p=0.7))]
    assert [each.weight for each in weighed(cast, "probability")] == pytest.approx([0.3, 0.3, 0.7])
    verdict = vote.judge(cast, VoteSettings(n=3, weights="probability"))
    assert (verdict.winner, verdict.confidence) == ("5", pytest.approx(0.7 / 1.3))
    assert verdict.rule == "votes weighted by probability of 3"


def test_a_vote_weighs_its_lowest_group() -> None:
    # The window is 16, the least; the groups of the first are 9 ... 9 with the low one in all.
    low, high = [9.0] * 8 + [1.0] + [9.0] * 8, [5.0] * 17
    cast = [Sample.of(made(0, "4", confidences=low)), Sample.of(made(1, "5", confidences=high))]
    assert [each.weight for each in weighed(cast, "confidence")] == pytest.approx([(15 * 9 + 1) / 16, 5.0])


def test_a_vote_weighs_the_points_of_its_rank() -> None:
    certainties = {"4": 1.0, "5": 3.0, "6": 2.0}
    cast = [Sample.of(made(n, answer, certainty=each)) for n, (answer, each) in enumerate(certainties.items())]
    abstention = Sample.of(Completion(3, "", "Hm.. I cannot.", (1,), 0, "stop", 0.1))
    assert [each.weight for each in weighed([*cast, abstention], "certainty")] == pytest.approx([1, 3**0.5, 2**0.5, 0])


def test_borda_points_are_the_root_of_the_rank_from_below() -> None:
    assert borda([0.5, None, 0.9, 0.1]) == pytest.approx([2**0.5, 0, 3**0.5, 1])
    assert borda([1, 2, 3, 4], power=2) == [1, 4, 9, 16]
    assert borda([]) == []


def test_unweighted_votes_count_one_each() -> None:
    assert [each.weight for each in weighed([Sample.of(made(0, "4")), Sample.of(made(1, "5"))], "none")] == [1, 1]


# When drawing stops


def integral(first: int, second: int) -> float:
    """P that p > 1/2 for the density p^first (1 - p)^second, by Simpson's rule."""

    def area(low: float, high: float, pieces: int = 2000) -> float:
        step = (high - low) / pieces
        heights = [(low + step * i) ** first * (1 - low - step * i) ** second for i in range(pieces + 1)]
        return step / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1::2]) + 2 * sum(heights[2:-1:2]))

    return area(0.5, 1.0) / area(0.0, 1.0)


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 5, 8, 13, 40])
@pytest.mark.parametrize("second", [0, 1, 2, 5, 12])
def test_the_beta_criterion_equals_the_integral_of_its_paper(first: int, second: int) -> None:
    assert stays_ahead(first, second) == pytest.approx(integral(first, second), abs=1e-7)


@pytest.mark.parametrize(
    ("first", "second", "probability"),
    [(0, 0, 0.5), (1, 0, 0.75), (2, 0, 0.875), (3, 0, 0.9375), (4, 0, 0.96875), (5, 1, 0.9375), (6, 1, 0.96484375)],
)
def test_values_of_the_beta_criterion(first: int, second: int, probability: float) -> None:
    assert stays_ahead(first, second) == probability


def test_four_identical_answers_suffice_and_three_do_not() -> None:
    settings = VoteSettings(n=40)
    assert settled(answered("444"), settings) is None
    assert settled(answered("4444"), settings) == "4 against 0 is clear"
    assert settled(answered("4445444"), settings) == "6 against 1 is clear"
    assert settled(answered("44-4-4"), settings) == "4 against 0 is clear"
    assert settled(answered("----"), settings) is None


def test_beta_stops_too_when_the_leader_cannot_be_caught() -> None:
    assert settled(answered("444454"), VoteSettings(n=8)) == "the leader cannot be caught, 5 against 1"
    assert settled(answered("44445"), VoteSettings(n=8)) is None
    assert settled(answered("4444"), VoteSettings(n=4)) is None, "nothing is left to stop"


def test_a_wave_is_as_large_as_could_settle_it() -> None:
    settings = VoteSettings(n=40)
    assert [next_wave(answered(each), settings) for each in ("", "4", "45", "4445", "----")] == [4, 3, 5, 3, 4]
    assert [next_wave(answered(each), VoteSettings(n=8)) for each in ("", "4445", "44454", "4545")] == [4, 2, 1, 3]
    assert next_wave(answered("4545454"), VoteSettings(n=8)) == 1


@given(st.text("45-", max_size=11), st.integers(1, 12))
def test_no_part_of_a_wave_could_have_settled_it(answers: str, n: int) -> None:
    drawn, settings = answered(answers[: n - 1]), VoteSettings(n=n)
    wave = next_wave(drawn, settings)
    assert 1 <= wave <= n - len(drawn)
    if settled(drawn, settings) is None:
        for more in range(1, wave):
            for answer in "45":
                added = answered("-" * len(drawn) + answer * more)[len(drawn) :]
                assert settled([*drawn, *added], settings) is None


def test_an_early_stop_saves_the_later_waves() -> None:
    verdict = voted("44445555")
    assert (verdict.winner, verdict.confidence, len(verdict.samples)) == ("4", 1.0, 4)
    assert verdict.rule == "majority of 4, 4 against 0 is clear"
    assert (verdict.spent, verdict.saved, verdict.sequential) == (4 * 9, 4 * 9, 9)


def test_waves_wait_for_each_other() -> None:
    replies = [spoken("4"), "x" * 10 + spoken("5"), spoken("4"), spoken("4"), "xx" + spoken("4"), spoken("4"), "", ""]
    verdict = voted(replies)
    assert (verdict.winner, len(verdict.samples)) == ("4", 6)
    assert verdict.rule == "majority of 6, the leader cannot be caught, 5 against 1"
    assert verdict.sequential == 19 + 11


def test_certain_stops_the_rest_at_once_and_frees_their_slots() -> None:
    replies = [spoken("4")] * 5 + ["x" * 100 + spoken("5")] * 3
    fake = speaking(replies)
    events, verdict = told(replies, fake=fake, stop="certain")
    assert (verdict.winner, verdict.confidence) == ("4", 1.0)
    assert [each.completion.finish_reason for each in verdict.samples] == ["stop"] * 5 + ["cancelled"] * 3
    # A step after the five ended nothing is decoded any more: nine letters, and the end is drawn from the ninth.
    assert len(verdict.samples[-1].completion.tokens) == 10
    assert fake.batches[-1] == 8
    assert fake.cells() == len("Q:How many?\nA:") - 1
    note = "stopped: the leader cannot be caught, 5 against 0"
    assert [each.note for each in verdict.samples] == [""] * 5 + [note] * 3
    assert [event for event in events if isinstance(event, SampleNoted)] == [SampleNoted(n, note) for n in (5, 6, 7)]
    assert verdict.rule == "majority of 5, the leader cannot be caught, 5 against 0"


def test_a_sample_that_ends_in_the_very_step_is_counted_without_a_note() -> None:
    events, verdict = told("444444", stop="certain", n=6)
    assert [each.completion.finish_reason for each in verdict.samples] == ["stop"] * 6
    assert not [event for event in events if isinstance(event, SampleNoted)]
    assert {each.note for each in verdict.samples} == {""}


def test_samples_that_wait_for_a_slot_are_stopped_before_they_begin() -> None:
    verdict = voted("444455", slots=2, stop="certain")
    assert [len(each.completion.tokens) for each in verdict.samples] == [9, 9, 9, 9, 0, 0]
    assert (verdict.spent, verdict.saved) == (36, 18)


def test_the_note_comes_before_the_end_of_its_sample() -> None:
    events, _ = told([spoken("4")] * 2 + ["x" * 30], stop="certain")
    last = [event for event in events if isinstance(event, SampleNoted | SampleFinished)][-2:]
    assert [type(event) for event in last] == [SampleNoted, SampleFinished]


def test_a_unanimous_window_decides_alone() -> None:
    verdict = voted("445" + "666" + "444", stop="esc", window=3)
    assert (verdict.winner, verdict.confidence, len(verdict.samples)) == ("6", 1.0, 6)
    assert verdict.rule == "majority of 3, a window of 3 agrees"
    assert [each.weight for each in verdict.samples] == [0, 0, 0, 1, 1, 1]
    assert verdict.samples[0].note == "overruled by a later window"
    assert verdict.abstained == 0


def test_without_a_unanimous_window_all_samples_vote() -> None:
    verdict = voted("4454-4566" + "44", stop="esc", window=3)
    assert (verdict.winner, len(verdict.samples), verdict.rule) == ("4", 11, "majority of 11")


def test_a_window_that_abstains_agrees_on_nothing() -> None:
    assert len(voted("---444", stop="esc", window=3).samples) == 6


def test_no_criterion_draws_all() -> None:
    assert len(voted("44444444", stop="none").samples) == 8


@given(st.text("456-", min_size=1, max_size=9))
def test_certain_never_changes_the_winner(answers: str) -> None:
    replies = ["x" * (7 * n % 5) + spoken(each) for n, each in enumerate(answers)]
    stopped, whole = (voted(replies, slots=9, stop=stop) for stop in ("certain", "none"))
    assert (stopped.winner, stopped.tied) == (whole.winner, whole.tied)
    assert stopped.spent <= whole.spent


# Settings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"n": 0}, "between 1 and 255"), ({"n": 256}, "not 256"), ({"window": 1}, "at least 2 samples, not 1")],
)
def test_senseless_settings_are_refused(settings: dict[str, int], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        VoteSettings(**settings)
