"""Best of n by the model's own judgement: is this answer right? (P(True), arXiv 2207.05221)

`n` samples are drawn together. Then the model reads the question with each answer, thought included. The probability of
the reply "Yes" against "No" is the score of the answer; no judgement is drawn. `pick` says how to choose: `best` takes
the sample of the highest score, `sum` adds up the scores of equal answers, a vote weighted by them.

When judging is stopped, or an answer does not fit into the context, the votes count alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import prompts
from runtime.base.events import Event, Notice, SampleNoted
from runtime.base.types import Completion
from runtime.strategies.asked_choice import chances
from runtime.strategies.task import Task, check_samples, was_stopped
from runtime.strategies.verdict import Sample, Verdict, count

Pick = Literal["best", "sum"]


@dataclass(frozen=True, slots=True)
class BonSettings:
    """`n`: samples. `pick`: how one answer is chosen by the scores."""

    n: int = 8
    pick: Pick = "best"

    def __post_init__(self) -> None:
        check_samples(self.n)


def run(task: Task, settings: BonSettings) -> Generator[Event, None, Verdict]:
    samples = yield from task.draw(task.requests(range(settings.n)))
    voting = [each for each in sorted(samples, key=lambda each: each.number) if each.answer is not None]
    scores = None
    if len(voting) > 1 and not was_stopped(samples):
        yield Notice(f"bon: judging {len(voting)} answers")
        asked = [
            prompts.read("bon-judge").format(question=task.question, answer=whole(each.completion)) for each in voting
        ]
        found = yield from chances(task, asked, ("Yes", "No"))
        scores = None if found is None else {each.number: yes for each, (yes, _) in zip(voting, found, strict=True)}
        for number, score in (scores or {}).items():
            yield SampleNoted(number, f"{100 * score:.0f} % right, by its own judgement")
    return judge(samples, settings, scores)


def whole(completion: Completion) -> str:
    """Thought and answer as one text."""
    return "\n\n".join(filter(None, (completion.thinking.strip(), completion.answer.strip())))


def judge(samples: Sequence[Sample], settings: BonSettings, scores: dict[int, float] | None) -> Verdict:
    """The choice by these scores, by sample number; the majority without them."""
    ordered = sorted(samples, key=lambda each: each.number)
    finished = sum(each.finished for each in ordered)
    if scores is None:
        return count("bon", ordered, f"majority of {finished}, not judged", planned=settings.n)
    best = max(scores, key=lambda number: scores[number])
    weighed = [
        replace(
            each,
            weight=scores.get(each.number, 0.0) if settings.pick == "sum" else float(each.number == best),
            note=f"{100 * scores[each.number]:.0f} % right" if each.number in scores else each.note,
        )
        for each in ordered
    ]
    how = "the best" if settings.pick == "best" else "votes weighted by the judgement"
    return count("bon", weighed, f"{how} of {finished}, judged by the model itself", planned=settings.n)
