"""NoThinking with a scripted model: samples without thought, chosen by self-certainty."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.base.errors import UsageError
from runtime.base.types import Completion, TokenStatistics
from runtime.engine.template import Prompt
from runtime.strategies import no_think_vote
from runtime.strategies.no_think_vote import NoThinkVoteSettings, Pick
from runtime.strategies.verdict import Sample
from tests.runtime.strategies.scripted import backend, drain, task


def made(number: int, answer: str, certainty: float, p: float = -1.0) -> Sample:
    statistics = (TokenStatistics(p, 1.0, certainty),) * 3
    return Sample.of(Completion(number, "", answer, (1, 1, 1), 0, "stop", 0.1, statistics=statistics))


def test_the_prompt_closes_the_thought() -> None:
    asked = []

    def make_prompt(question: str, thinking: bool | None) -> Prompt:
        asked.append(thinking)
        return Prompt(tuple(f"Q:{question}\nA:".encode()), False)

    given = task(lambda question, sample: f"\\boxed{{{4 + (sample == 1)}}}", fake=None)
    events, verdict = drain(no_think_vote.run(replace(given, make_prompt=make_prompt), NoThinkVoteSettings(n=5)))
    assert asked == [False]
    assert (verdict.winner, verdict.tally[0].votes) == ("4", 4)
    assert verdict.rule == "votes weighted by Borda points of self-certainty of 5 without thought"
    assert events


# By points 4 has 3 ** 0.5 + 1 = 2.73 against 2, the fourth root; the surest alone says 5.
DRAWN = [
    made(0, "\\boxed{4}", 2.0),
    made(1, "\\boxed{5}", 9.0),
    made(2, "\\boxed{4}", 1.0),
    made(3, "Hm.. I cannot", 8.0),
]


def test_points_by_rank_add_up_for_equal_answers() -> None:
    verdict = no_think_vote.judge(DRAWN, NoThinkVoteSettings(n=4))
    assert [each.weight for each in verdict.samples] == pytest.approx([2**0.5, 3**0.5, 1, 0])
    assert (verdict.winner, verdict.abstained) == ("4", 1)


def test_the_surest_sample_can_decide_alone() -> None:
    verdict = no_think_vote.judge(DRAWN, NoThinkVoteSettings(n=4, pick="best"))
    assert (verdict.winner, verdict.confidence, verdict.tied) == ("5", 1.0, False)
    assert verdict.rule == "the answer of highest self-certainty of 4 without thought"


@pytest.mark.parametrize("pick", ["borda", "best"])
def test_without_answers_the_surest_is_shown(pick: Pick) -> None:
    drawn = [made(0, "A poem of some sort", 1.0, p=-0.1), made(1, "Another one that is longer", 3.0, p=-2.0)]
    verdict = no_think_vote.judge(drawn, NoThinkVoteSettings(n=2, pick=pick))
    assert (verdict.winner, verdict.tally, verdict.abstained) == (None, (), 2)
    assert verdict.chosen is drawn[1].completion


def test_an_interrupt_shows_what_is_there() -> None:
    fake = backend(lambda question, sample: "\\boxed{4}" if sample == 1 else "x" * 90, slots=4)
    fake.abort_after = 20
    _, verdict = drain(no_think_vote.run(task(lambda question, sample: "", fake=fake), NoThinkVoteSettings(n=3)))
    assert (verdict.winner, verdict.tally[0].votes) == ("4", 1)


def test_there_is_at_least_one_sample() -> None:
    with pytest.raises(UsageError):
        NoThinkVoteSettings(n=0)
