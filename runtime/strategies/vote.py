"""Self-consistency: draw several samples and let their answers vote (arXiv 2203.11171).

`weights`: votes can be weighted by how sure the model was: the geometric mean of the tokens' probabilities, DeepConf's
lowest group confidence (arXiv 2508.15260), or Borda points of self-certainty (arXiv 2502.18581).

`stop`: drawing can stop early; the criteria look at the numbers of votes, whatever their weights.
- `beta` is Adaptive-Consistency (arXiv 2305.11860): with v1 and v2 the votes of the two leading answers, stop when
  P(v1 stays ahead) = 1 - I_1/2(v1 + 1, v2 + 1) is at least 0.95, or when the leader cannot be caught. The paper draws
  one sample after another. Here as many are drawn together as are needed at least, should all agree with the leader:
  none of them could have been spared, so the result is the same.
- `esc` draws windows and stops when one is unanimous, which then decides alone (arXiv 2401.10480).
- `certain` draws all together, and stops when the leader cannot be caught by those that have not ended. The winner of
  an unweighted vote is the same as without it.

`judge=close`: where the leader has at most one vote more than the second, the model itself chooses between the best
explained sample of each. It reads both, each of them first once, and the likelier reply of "A" and "B" decides; nothing
more is drawn. Ours, for few samples.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Literal

import prompts
from runtime import answers
from runtime.base.errors import UsageError
from runtime.base.events import Event
from runtime.engine import confidence
from runtime.strategies.asked_choice import chances
from runtime.strategies.task import Task, check_samples, fate, was_stopped
from runtime.strategies.verdict import Sample, Verdict, best_explained, count, whole

Weights = Literal["none", "probability", "confidence", "certainty"]
Stopping = Literal["beta", "esc", "certain", "none"]
Judge = Literal["none", "close"]

_ENOUGH = 0.95  # github.com/Pranjal2041/AdaptiveConsistency, stopping_criterias.py, BetaStoppingCriteria
_BORDA_POWER = 0.5  # github.com/backprop07/Self-Certainty, src/
_RULES: dict[Weights, str] = {
    "none": "majority",
    "probability": "votes weighted by probability",
    "confidence": "votes weighted by lowest group confidence",
    "certainty": "votes weighted by Borda points of self-certainty",
}


@dataclass(frozen=True, slots=True)
class VoteSettings:
    """`n`: samples at most. `window`: of `esc` (5 for GSM8K in its code). `judge`: of the two best answers."""

    n: int = 8
    weights: Weights = "none"
    stop: Stopping = "beta"
    window: int = 5
    judge: Judge = "none"

    def __post_init__(self) -> None:
        check_samples(self.n)
        if self.window < 2:
            raise UsageError(f"a window has at least 2 samples, not {self.window}")


def run(task: Task, settings: VoteSettings) -> Generator[Event, None, Verdict]:
    samples: list[Sample] = []
    sequential, why = 0, ""

    def enough(drawn: Sequence[Sample]) -> str | None:
        return settled(drawn, settings)

    while not why and len(samples) < settings.n and not was_stopped(samples):
        numbers = range(len(samples), len(samples) + next_wave(samples, settings))
        wave, why = yield from task.draw_until(task.requests(numbers), enough, before=samples)
        samples += wave
        sequential += max(len(each.completion.tokens) for each in wave)
    verdict = judge(samples, settings, why, sequential)
    if settings.judge == "none" or was_stopped(samples):
        return verdict
    return (yield from _judged(task, verdict))


def _judged(task: Task, verdict: Verdict) -> Generator[Event, None, Verdict]:
    """The verdict after the model's choice between the two best answers, where they are close."""
    if len(verdict.tally) < 2 or verdict.tally[0].votes - verdict.tally[1].votes > 1:
        return verdict
    two = [best_explained([each for each in verdict.samples if each.number in candidate.samples])
           for candidate in verdict.tally[:2]]  # fmt: skip
    texts = [whole(each.completion) for each in two]
    asked = [
        prompts.read("vote-judge").format(question=task.question, first=first, second=second)
        for first, second in (texts, texts[::-1])
    ]
    found = yield from chances(task, asked, ("A", "B"))
    if found is None:
        return verdict
    second = (found[0][1] + found[1][0]) / 2
    preferred = 1 if second > 0.5 else 0
    leader, other = verdict.tally[preferred], verdict.tally[1 - preferred]
    whole_weight = sum(each.weight for each in verdict.tally)
    rule = f"{verdict.rule.partition(';')[0]}; the model prefers it to the next, {100 * max(second, 1 - second):.0f} %"
    return replace(
        verdict,
        winner=leader.answer,
        chosen=two[preferred].completion,
        confidence=leader.weight / whole_weight if whole_weight else 0.0,
        tally=(leader, other, *verdict.tally[2:]),
        tied=False,
        rule=rule,
    )


def judge(samples: Sequence[Sample], settings: VoteSettings, why: str = "", sequential: int | None = None) -> Verdict:
    """Count the votes of these samples. `why`: the reason when a criterion stopped the drawing."""
    ordered = sorted(samples, key=lambda each: each.number)
    weighted = weighed([replace(each, note=fate(each.completion, why)) for each in ordered], settings.weights)
    overruled = len(weighted) - settings.window if why and settings.stop == "esc" else 0
    voting = weighted[overruled:]
    without = (replace(each, weight=0.0, note="overruled by a later window") for each in weighted[:overruled])
    rule = f"{_RULES[settings.weights]} of {sum(each.finished for each in voting)}" + (f", {why}" if why else "")
    return count("vote", [*without, *voting], rule, planned=settings.n, sequential=sequential)


def weighed(samples: Sequence[Sample], weights: Weights) -> tuple[Sample, ...]:
    """The samples with their weights. The window of DeepConf is scaled to the samples that ended."""
    statistics = [each.completion.statistics for each in samples]
    found = [1.0] * len(samples)
    if weights == "probability":
        found = [confidence.probability(each) for each in statistics]
    elif weights == "confidence":
        window = confidence.window_for([len(each.completion.tokens) for each in samples if each.finished])
        found = [confidence.lowest_group(each, window) for each in statistics]
    elif weights == "certainty":
        found = borda([
            confidence.self_certainty(each.completion.statistics) if each.answer is not None else None
            for each in samples
        ])  # fmt: skip
    return tuple(replace(each, weight=weight) for each, weight in zip(samples, found, strict=True))


def borda(scores: Sequence[float | None], power: float = _BORDA_POWER) -> list[float]:
    """Points by rank, (N - rank + 1) ** power for the N that have a score; the others get none."""
    ranked = sorted((-score, index) for index, score in enumerate(scores) if score is not None)
    points = [0.0] * len(scores)
    for rank, (_, index) in enumerate(ranked):
        points[index] = float((len(ranked) - rank) ** power)
    return points


def stays_ahead(first: int, second: int) -> float:
    """The probability that an answer of `first` votes is the true majority against one of `second`.

    The regularised incomplete beta function at 1/2 is the tail of a binomial distribution.
    """
    tosses = first + second + 1
    return 1.0 - sum(comb(tosses, heads) for heads in range(first + 1, tosses + 1)) / (1 << tosses)


def settled(samples: Sequence[Sample], settings: VoteSettings) -> str | None:
    """Why no more samples are needed, or None."""
    left = settings.n - len(samples)
    if settings.stop == "none" or not left:
        return None
    if settings.stop == "esc":
        return _window_agrees(samples, settings.window)
    first, second = _votes(samples)
    if settings.stop == "beta" and stays_ahead(first, second) >= _ENOUGH:
        return f"{first} against {second} is clear"
    return f"the leader cannot be caught, {first} against {second}" if first - second > left else None


def next_wave(samples: Sequence[Sample], settings: VoteSettings) -> int:
    """How many samples to draw together next."""
    left = settings.n - len(samples)
    if settings.stop == "esc":
        return min(settings.window, left)
    if settings.stop != "beta":
        return left
    first, second = _votes(samples)
    for more in range(1, left):
        leader = first + more
        if stays_ahead(leader, second) >= _ENOUGH or leader - second > left - more:
            return more
    return left


def _window_agrees(samples: Sequence[Sample], window: int) -> str | None:
    complete = len(samples) % window == 0
    agrees = complete and _votes(samples[len(samples) - window :])[0] == window
    return f"a window of {window} agrees" if agrees else None


def _votes(samples: Sequence[Sample]) -> tuple[int, int]:
    """The numbers of votes of the two leading answers."""
    found = answers.groups([each.answer for each in samples])
    first, second, *_ = [*sorted((len(group) for group in found), reverse=True), 0, 0]
    return first, second
