"""DeepConf with a scripted model whose confidence is the last digit it wrote."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleNoted
from runtime.base.types import Completion, TokenStatistics
from runtime.engine.sequence import Demand
from runtime.strategies import deepconf
from runtime.strategies.deepconf import DeepConfSettings, demanded, percentile
from runtime.strategies.verdict import Sample, Verdict
from tests.fakes import FakeBackend
from tests.runtime.strategies.scripted import backend, drain, task


def speaking(*replies: str, slots: int = 8) -> FakeBackend:
    fake = backend(lambda question, sample: replies[sample], slots=slots)
    fake.confidence = lambda held: float(chr(held[-1])) if chr(held[-1]).isdigit() else 9.0
    return fake


def told(*replies: str, fake: FakeBackend | None = None, **settings: Any) -> tuple[list[Event], Verdict]:
    given = task(lambda question, sample: "", fake=fake or speaking(*replies))
    return drain(deepconf.run(given, DeepConfSettings(n=len(replies), **settings)))


def reply(confidence: int, answer: str, length: int = 8) -> str:
    """Its lowest group of 4 is the digit, which is written in the thought; in the answer there are no digits."""
    return f"<think>{str(confidence) * length}</think>\\boxed{{{answer}}}"


def made(sample: int, *confidences: float) -> Completion:
    statistics = tuple(TokenStatistics(-1.0, each, 1.0) for each in confidences)
    return Completion(sample, "", "\\boxed{a}", (1,) * len(statistics), 0, "stop", 0.1, statistics=statistics)


def test_unsure_samples_are_cut_and_the_others_vote() -> None:
    events, verdict = told(
        reply(6, "a"), reply(8, "b"), reply(5, "b"), reply(7, "a"),  # the warm-up
        reply(3, "b"), reply(7, "a"), reply(5, "b", 30),
        warmup=4, keep=50, window=4,
    )  # fmt: skip
    # The threshold is between 6 and 7; the samples at 6 and 5 do not count, those at 3 and 5 are cut.
    assert [each.weight for each in verdict.samples if each.finished] == [0, 8, 0, 7, 7]
    assert [each.completion.finish_reason for each in verdict.samples[4:]] == ["cut", "stop", "cut"]
    assert (verdict.winner, verdict.confidence) == ("a", pytest.approx(14 / 22))
    assert verdict.rule == "votes of 3 weighted by lowest group confidence"
    below, cut = "confidence below 6.50", "cut: confidence below 6.50"
    assert [each.note for each in verdict.samples] == [below, "", below, "", cut, "", cut]
    assert [each for each in events if isinstance(each, SampleNoted)] == [SampleNoted(4, cut), SampleNoted(6, cut)]


def test_a_sample_is_cut_at_the_first_group_below_the_threshold() -> None:
    _, verdict = told(reply(6, "a"), reply(8, "b"), reply(3, "b", 30), warmup=2, keep=100, window=4)
    # "<think>" has 7 letters, and the confidence of a letter is that of the one before it. Two digits after the first
    # the group is 9 9 3 3, at the threshold; one more and it is below.
    assert len(verdict.samples[2].completion.tokens) == 7 + 1 + 3
    assert verdict.spent == 2 * (7 + 8 + 8 + 9) + 11


def test_the_warm_up_alone_can_settle_it() -> None:
    _, verdict = told(*[reply(6, "a")] * 3, *[reply(6, "b")] * 3, warmup=3)
    assert (verdict.winner, len(verdict.samples)) == ("a", 3)
    assert verdict.rule == "votes of 3 weighted by lowest group confidence, the leader has 100% of the weight"
    assert verdict.saved == verdict.spent


def test_the_others_are_stopped_when_the_leader_has_its_share() -> None:
    _, verdict = told(
        reply(6, "a"), reply(6, "b"), reply(6, "a", 4), reply(6, "a", 60), warmup=2, window=4, keep=100, share=0.6
    )
    assert (verdict.winner, verdict.samples[3].completion.finish_reason) == ("a", "cancelled")
    assert verdict.samples[3].note == "stopped: the leader has 67% of the weight"
    lengths = [len(each.completion.tokens) for each in verdict.samples]
    assert verdict.sequential == lengths[0] + lengths[3]


def test_a_warm_up_of_all_samples_is_an_offline_vote() -> None:
    _, verdict = told(reply(6, "a"), reply(8, "b"), reply(5, "a"), warmup=3, keep=1, window=4)
    assert (verdict.winner, verdict.confidence) == ("b", 1.0)


def test_nobody_wins_when_all_abstain() -> None:
    _, verdict = told(*["I cannot.. say"] * 4, warmup=2)
    assert (verdict.winner, verdict.abstained) == (None, 4)
    assert verdict.chosen is not None


def test_an_interrupt_of_the_warm_up_ends_it() -> None:
    fake = speaking(*[reply(6, "a")] * 4)
    fake.abort_after = 10
    _, verdict = told(*[reply(6, "a")] * 4, fake=fake, warmup=2)
    assert (verdict.winner, len(verdict.samples)) == (None, 2)


def test_an_interrupt_of_the_others_leaves_the_warm_up() -> None:
    replies = [reply(6, "a"), reply(6, "b"), reply(6, "a", 90), reply(6, "a", 90)]
    fake = speaking(*replies)
    fake.abort_after = 60
    _, verdict = told(*replies, fake=fake, warmup=2, window=4)
    assert (verdict.tied, verdict.confidence) == (True, 0.5)
    assert [each.completion.finish_reason for each in verdict.samples] == ["stop", "stop", "cancelled", "cancelled"]


def test_the_window_is_scaled_to_the_warm_up() -> None:
    warm = [Sample.of(each) for each in (made(0, *[6.0] * 400), made(1, *[8.0] * 200), made(2, *[7.0] * 100))]
    assert demanded(warm, DeepConfSettings(n=8, warmup=3, keep=100)) == Demand(6.0, 50)
    assert demanded(warm, DeepConfSettings(n=8, warmup=3, keep=50, window=7)) == Demand(7.0, 7)
    assert demanded([], DeepConfSettings()) is None


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (10, 1.3), (25, 1.75), (50, 2.5), (90, 3.7), (99, 3.97), (100, 4)]
)
def test_percentiles_lie_between_the_nearest_values(percent: int, value: float) -> None:
    assert percentile([3, 1, 4, 2], percent) == pytest.approx(value)
    assert percentile([5.0], percent) == 5


@pytest.mark.parametrize(
    "settings", [{"n": 0}, {"n": 4}, {"warmup": 0}, {"keep": 0}, {"keep": 101}, {"window": -1}, {"share": float("nan")}]
)
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DeepConfSettings(**settings)
