"""phi-Decoding: its decisions with literal figures, and a whole search over scripted replies."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import SampleFinished, SampleNoted
from runtime.base.types import Completion, TokenStatistics
from runtime.strategies import foresight, phi
from runtime.strategies.foresight import Beam
from runtime.strategies.phi import PhiSettings
from tests.runtime.strategies.scripted import backend, drain, nano_task, task

WIDTH = {"sigma": 1.0, "tau": 0.1}
CHOICE = {"k": 3, "tau": 0.1, "agreement": 0.7}


def foreseen(logprob: float, text: str = "so 5") -> Completion:
    return Completion(0, "", text, (1, 2), 0, "stop", 0.1, statistics=(TokenStatistics(logprob, 1, 1),) * 2)


def test_candidates_far_below_the_mean_are_dropped_but_never_too_many() -> None:
    rng = random.Random(0)
    # Mean -0.5, deviation 0.8: what is above -1.3 stays.
    assert foresight.in_width([-0.1, -0.1, -2.1, -0.1, -0.1], 2, **WIDTH, rng=rng) == [0, 1, 3, 4]
    assert foresight.in_width([-0.1, -0.1, -2.1, -0.1, -0.1], 5, **WIDTH, rng=rng) == [0, 1, 2, 3, 4]
    # All alike: none is above the mean, so the least number is drawn.
    assert len(foresight.in_width([-0.5] * 4, 3, **WIDTH, rng=rng)) == 3


def test_the_advantage_is_over_the_step_before_and_first_over_the_mean() -> None:
    beams = [Beam(), Beam(), Beam(foresight=-0.2)]
    found = foresight.scored_by_foresight(beams, [foreseen(-0.1), foreseen(-0.5), foreseen(-0.3)])
    assert [each.gain for each in found] == pytest.approx([0.2, -0.2, -0.1])
    assert [each.foresight for each in found] == pytest.approx([-0.1, -0.5, -0.3])


def test_only_beams_with_an_advantage_go_on_while_there_are_enough() -> None:
    beams = [Beam(gain=gain) for gain in (0.1, -0.2, 0.3, 0.1)]
    texts = ["five six"] * 4
    chosen, agreed = foresight.select(beams, texts, 3, **CHOICE, rng=random.Random(1))
    assert (sorted(chosen), agreed) == ([0, 2, 3], True)
    # An empty foresight is no reason to trust a beam: too few are left, so all take part.
    chosen, agreed = foresight.select(beams, ["", *texts[1:]], 3, **{**CHOICE, "tau": 0.001}, rng=random.Random(1))
    assert (sorted(chosen), agreed) == ([0, 2, 3], False)
    _, agreed = foresight.select(beams, ["five", "x", "six", "seven"], 3, **CHOICE, rng=random.Random(1))
    assert not agreed


def test_the_choice_is_from_the_larger_cluster_by_advantage() -> None:
    texts = ["zebra", "the sum is 5", "the sum is 5", "zebra zebra", "the sum is 5"]
    chosen = {foresight.choose([9.0, 0.0, 0.5, 9.0, 0.1], texts, tau=0.01, rng=random.Random(n)) for n in range(20)}
    assert chosen == {2}


def script(question: str, sample: int) -> str:
    return "<think>\n\nfirst add\nthen carry\n</think>\n\nThe answer is \\boxed{12}."


def test_a_search_goes_on_from_the_tokens_that_were_drawn() -> None:
    fake = backend(script, slots=3)
    events, verdict = drain(phi.run(task(script, fake=fake), PhiSettings(beams=2, rollouts=2)))
    assert (verdict.winner, len(verdict.samples)) == ("12", 2)
    chosen = verdict.chosen
    assert chosen is not None
    assert (chosen.thinking, chosen.answer) == ("first add\nthen carry", "The answer is \\boxed{12}.")
    assert bytes(chosen.tokens).decode() == script("", 0)
    assert len(chosen.statistics) == len(chosen.tokens)
    # All first steps are the same, so one step of foresight is enough: 4 steps, 4 or fewer foresights, 2 completions.
    notes = [event.text for event in events if isinstance(event, SampleNoted)]
    assert notes[:4] == ["step 1"] * 4 and notes[-2:] == ["completing"] * 2
    drawn = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert [each.answer for each in drawn[:4]] == ["<think>\n\nfirst add\n"] * 4
    assert verdict.spent == sum(len(each.tokens) for each in drawn)
    assert verdict.sequential == len(script("", 0)) * 2 - len("<think>\n\nfirst add\n")


def test_beams_that_end_wait_for_the_choice() -> None:
    _, verdict = drain(phi.run(task(lambda question, sample: "\\boxed{7}"), PhiSettings(beams=3, rollouts=1)))
    assert verdict.rule.endswith("of 3, chosen by foresight after step 1")
    assert (verdict.winner, [each.completion.answer for each in verdict.samples]) == ("7", ["\\boxed{7}"] * 3)


@pytest.mark.parametrize("batches", [3, 30, 60, 120, 200, 300])
def test_a_stop_at_any_time_leaves_what_there_is(batches: int) -> None:
    fake = backend(script)
    fake.abort_after = batches
    _, verdict = drain(phi.run(task(script, fake=fake), PhiSettings(beams=2, rollouts=2)))
    assert verdict.winner in (None, "12")


def test_a_stop_after_a_foresight_takes_what_was_foreseen() -> None:
    def different(question: str, sample: int) -> str:
        # Never the same line, so that there is a second step to be stopped in.
        return "".join(f"{sample + number} is next\n" for number in range(4)) + "\\boxed{12}"

    stopped = []
    for batches in range(40, 200, 4):
        fake = backend(different)
        fake.abort_after = batches
        _, verdict = drain(phi.run(task(different, fake=fake), PhiSettings(beams=2, rollouts=2)))
        if verdict.winner and verdict.rule.endswith("after step 1"):
            stopped.append(verdict.chosen)
    assert stopped and all(each is not None and each.answer.endswith("\\boxed{12}") for each in stopped)


@pytest.mark.parametrize("context", range(40, 120, 7))
def test_a_full_context_ends_beams_and_not_the_search(context: int) -> None:
    def endless(question: str, sample: int) -> str:
        return "".join(f"{sample} says {number}\n" for number in range(100))

    _, verdict = drain(phi.run(task(endless, fake=backend(endless, context=context)), PhiSettings(beams=2, rollouts=2)))
    assert {each.completion.finish_reason for each in verdict.samples} <= {"length", "cancelled"}
    assert all(len(each.completion.tokens) <= context for each in verdict.samples)


def test_a_question_that_does_not_fit_is_told() -> None:
    with pytest.raises(DoesNotFit):
        drain(phi.run(task(script, "long " * 50, fake=backend(script, context=100)), PhiSettings()))


def test_the_token_limit_counts_for_the_whole_reply() -> None:
    chosen = task(script)
    limited = replace(chosen, params=replace(chosen.params, max_tokens=25))
    _, verdict = drain(phi.run(limited, PhiSettings(beams=2, rollouts=2)))
    assert [len(each.completion.tokens) for each in verdict.samples] == [25, 25]


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"tau": 0.0}, {"agreement": 1.5}, {"min_depth": -1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        PhiSettings(**wrong)


def test_the_embedded_model_searches(nano_path: Path) -> None:
    with nano_task(nano_path, "What is 3 + 4?") as asked:
        _, verdict = drain(phi.run(asked, PhiSettings(beams=2, rollouts=2)))
    assert verdict.winner is not None
    assert verdict.spent > verdict.sequential > 20
