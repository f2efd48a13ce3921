"""How samples are counted, on literal samples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from runtime.base.types import Completion, TokenStatistics
from runtime.strategies.verdict import Sample, count, tally


def sample(
    number: int, answer: str = "", *, tokens: int = 10, thought: int = 0, p: float = 0.5, **kinds: Any
) -> Completion:
    """A sample that ends with `answer`, each of whose tokens has the probability `p`."""
    text = f"\\boxed{{{answer}}}" if answer else "I do not know."
    statistics = (TokenStatistics(math.log(p), 1.0, 1.0),) * tokens
    return Completion(number, "", text, (1,) * tokens, thought, kinds.pop("reason", "stop"), 0.1, statistics=statistics)


def samples(*answers: str) -> list[Sample]:
    return [Sample.of(sample(number, answer)) for number, answer in enumerate(answers)]


def test_the_majority_wins() -> None:
    verdict = count("vote", samples("4", "5", "4", "", "4"), "majority of 5", planned=5)
    assert (verdict.winner, verdict.confidence, verdict.abstained, verdict.tied) == ("4", 0.75, 1, False)
    assert [(each.answer, each.votes, each.weight, each.samples) for each in verdict.tally] == [
        ("4", 3, 3.0, (0, 2, 4)),
        ("5", 1, 1.0, (1,)),
    ]
    assert verdict.rule == "majority of 5"
    assert (verdict.spent, verdict.saved, verdict.sequential) == (50, 0, 10)


def test_equal_answers_are_one_candidate_named_as_its_first_voter_wrote_it() -> None:
    [candidate] = tally(samples("1,000", "1000", "1000.0"))
    assert (candidate.answer, candidate.votes) == ("1,000", 3)


def test_weights_outweigh_votes() -> None:
    cast = [
        Sample.of(sample(n, answer), weight) for n, (answer, weight) in enumerate([("4", 0.2), ("4", 0.2), ("5", 0.6)])
    ]
    verdict = count("vote", cast, "weighted")
    assert (verdict.winner, verdict.confidence) == ("5", pytest.approx(0.6))


def test_a_tie_is_marked_and_goes_to_the_more_confident() -> None:
    cast = [Sample.of(sample(0, "4", p=0.5, thought=2)), Sample.of(sample(1, "5", p=0.9, thought=8))]
    verdict = count("vote", cast, "majority of 2")
    assert (verdict.winner, verdict.tied, verdict.confidence) == ("5", True, 0.5)
    assert verdict.rule == "majority of 2; tie broken by mean confidence, then by the shorter thought"
    assert verdict.chosen is not None and verdict.chosen.sample == 1


def test_a_tie_of_equal_confidence_goes_to_the_shorter_thought() -> None:
    cast = [
        Sample.of(sample(0, "4", thought=8)),
        Sample.of(sample(1, "5", thought=3)),
        Sample.of(sample(2, "6", thought=5)),
    ]
    verdict = count("vote", cast, "majority of 3")
    assert [each.answer for each in verdict.tally] == ["5", "6", "4"]
    assert verdict.tied


def test_the_tie_rule_of_short_thoughts() -> None:
    cast = [Sample.of(sample(0, "4", p=0.5, thought=2)), Sample.of(sample(1, "5", p=0.9, thought=8))]
    verdict = count("short-m", cast, "majority of 2", tie="thought")
    assert (verdict.winner, verdict.tied) == ("4", True)
    assert verdict.rule == "majority of 2; tie broken by the shorter thought, then by mean confidence"


def test_sums_of_the_same_weights_in_another_order_are_a_tie() -> None:
    weights = {"4": (0.1, 0.2, 0.3), "5": (0.3, 0.2, 0.1)}
    cast = [Sample.of(sample(n, answer), weight) for answer, each in weights.items() for n, weight in enumerate(each)]
    assert count("vote", cast, "").tied


def test_nobody_wins_when_all_abstain_but_the_surest_is_shown() -> None:
    cast = [Sample.of(sample(0, p=0.3)), Sample.of(sample(1, p=0.8)), Sample.of(sample(2, p=0.9, reason="cancelled"))]
    verdict = count("vote", cast, "majority of 2")
    assert (verdict.winner, verdict.tally, verdict.confidence, verdict.tied) == (None, (), 0.0, False)
    assert verdict.abstained == 2
    assert verdict.chosen is not None and verdict.chosen.sample == 1


def test_an_unfinished_sample_has_no_vote_and_does_not_abstain() -> None:
    cast = [Sample.of(sample(0, "4", reason=reason)) for reason in ("cancelled", "cut")]
    assert [each.answer for each in cast] == [None, None]
    verdict = count("vote", cast, "")
    assert (verdict.winner, verdict.abstained) == (None, 0)


def test_of_unfinished_samples_the_longest_is_shown() -> None:
    cast = [Sample.of(sample(n, "4", tokens=tokens, reason="cancelled")) for n, tokens in enumerate((3, 9, 5))]
    verdict = count("vote", cast, "")
    assert verdict.chosen is not None and verdict.chosen.sample == 1


def test_a_sample_that_ran_into_its_limit_may_have_answered() -> None:
    assert Sample.of(sample(0, "4", reason="length")).answer == "4"


def test_nothing_drawn_is_a_verdict_too() -> None:
    verdict = count("vote", [], "majority of 0")
    assert (verdict.winner, verdict.chosen, verdict.spent, verdict.saved, verdict.sequential) == (None, None, 0, 0, 0)


def test_what_was_stopped_or_never_begun_was_saved() -> None:
    cast = [
        Sample.of(sample(0, "4", tokens=8)),
        Sample.of(sample(1, "4", tokens=12)),
        Sample.of(sample(2, tokens=3, reason="cancelled")),
        Sample.of(sample(3, tokens=4, reason="cut")),
        Sample.of(sample(4, tokens=30, reason="cancelled")),
    ]
    # Ten tokens on average: 7 and 6 were spared of the two that were shorter, and 3 samples never began.
    verdict = count("vote", cast, "", planned=8)
    assert (verdict.spent, verdict.saved, verdict.sequential) == (57, 7 + 6 + 30, 30)


def test_the_best_explained_of_the_winners_voters_is_shown() -> None:
    def explained(number: int, answer: str, confidence: float, weight: float = 1.0) -> Sample:
        done = sample(number, answer)
        return Sample.of(replace(done, statistics=(TokenStatistics(-0.1, confidence, 1.0),)), weight)

    cast = [explained(0, "1/2", 4.0), explained(1, "0.5", 6.0), explained(2, "50%", 9.0, 0.0), explained(3, "7", 9.0)]
    verdict = count("vote", cast, "")
    assert verdict.chosen is not None and verdict.chosen.sample == 1
    assert (verdict.winner, verdict.tally[0].samples) == ("0.5", (0, 1, 2))
    equal = [Sample.of(sample(0, "4", p=0.5)), Sample.of(sample(1, "4", p=0.9)), Sample.of(sample(2, "5", p=0.99))]
    chosen = count("vote", equal, "").chosen
    assert chosen is not None and chosen.sample == 1
