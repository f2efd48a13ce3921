"""Soft self-consistency for free texts: of `n` answers the one that is likeliest after each of the others.

Texts are seldom equal, so they cannot vote. Universal and soft self-consistency (arXiv 2311.17311, 2402.13212) choose
between them by the model. Here it is a medoid: the model is shown one answer and asked for the same in other words, and
the mean log-probability of each other answer's tokens there tells how near the two are. The answer with the highest
mean over all others wins. Nothing more is drawn; n * (n - 1) answers are read.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from math import fsum

import prompts
from runtime.base.errors import UsageError
from runtime.base.events import Event, Notice
from runtime.strategies.asked_choice import mean_logprobs
from runtime.strategies.task import Task, was_stopped
from runtime.strategies.verdict import Sample, Verdict, count


@dataclass(frozen=True, slots=True)
class SoftSettings:
    """`n`: samples."""

    n: int = 5

    def __post_init__(self) -> None:
        if not 2 <= self.n <= 64:
            raise UsageError(f"soft: between 2 and 64 answers can be compared, not {self.n}")


def run(task: Task, settings: SoftSettings) -> Generator[Event, None, Verdict]:
    samples = yield from task.draw(task.requests(range(settings.n)))
    ordered = sorted(samples, key=lambda each: each.number)
    said = [each for each in ordered if each.finished and each.completion.answer.strip()]
    if len(said) < 2 or was_stopped(samples):
        return judge(ordered, said, None, settings)
    yield Notice(f"soft: comparing {len(said)} answers")
    texts = [each.completion.answer.strip() for each in said]
    asked = [
        (
            prompts.read("soft-other").format(question=task.question, answer=text),
            [other for index, other in enumerate(texts) if index != number],
        )
        for number, text in enumerate(texts)
    ]
    found = yield from mean_logprobs(task, asked)
    return judge(ordered, said, None if found is None else nearness(found), settings)


def nearness(found: Sequence[Sequence[float]]) -> list[float]:
    """The mean log-probability of each text after the others. Row i has those of all texts but i, in their order."""
    size = len(found)
    return [
        fsum(found[shown][text if text < shown else text - 1] for shown in range(size) if shown != text) / (size - 1)
        for text in range(size)
    ]


def judge(
    samples: Sequence[Sample], said: Sequence[Sample], near: Sequence[float] | None, settings: SoftSettings
) -> Verdict:
    """The nearest to all; without a comparison the surest. `near` belongs to the samples that `said` something."""
    if not said:
        return count("soft", samples, "no answer to compare", planned=settings.n, unit="sample")
    values = near if near is not None else [each.confidence for each in said]
    best = said[max(range(len(said)), key=lambda index: values[index])]
    weighed = [replace(each, weight=float(each is best)) for each in samples]
    how = "the nearest to the others" if near is not None else "the surest, not compared"
    verdict = count("soft", weighed, f"{how} of {len(said)}", planned=settings.n, unit="sample")
    return replace(verdict, chosen=best.completion, winner=best.answer, tied=False, rule=verdict.rule.partition(";")[0])
