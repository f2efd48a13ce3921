"""Best of n by the model's own judgement: is this answer right? (P(True), arXiv 2207.05221)

`n` samples are drawn together. Then the model reads the question with each answer, thought included. The probability of
the reply "Yes" against "No" is the score of the answer; no judgement is drawn. `pick` says how to choose: `best` takes
the sample of the highest score, `sum` adds up the scores of equal answers, a vote weighted by them.

With `head`, a file with a value head for this model (`value_head`), the score is its value at the end of each sample.
So `best` and `sum` are best of n and the weighted vote with a reward model.

When judging is stopped, or an answer does not fit into the context, the votes count alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from runtime.base.events import Event, Notice, SampleNoted
from runtime.strategies.task import Task, check_samples, was_stopped
from runtime.strategies.value_head import check_head, read_head
from runtime.strategies.values import by_head, by_proxy
from runtime.strategies.verdict import Sample, ValuedBy, Verdict, count, whole

Pick = Literal["best", "sum"]


@dataclass(frozen=True, slots=True)
class BonSettings:
    """`n`: samples. `pick`: how one answer is chosen by the scores. `head`: a file; the model judges without one."""

    n: int = 8
    pick: Pick = "best"
    head: str = ""

    def __post_init__(self) -> None:
        check_samples(self.n)
        check_head(self.head)


def run(task: Task, settings: BonSettings) -> Generator[Event, None, Verdict]:
    head = read_head(Path(settings.head)) if settings.head else None
    if head is not None:
        yield from by_head(task, head, [()])  # refuses a head that does not fit before anything is drawn
    samples = yield from task.draw(task.requests(range(settings.n)))
    voting = [each for each in sorted(samples, key=lambda each: each.number) if each.answer is not None]
    scores = None
    if len(voting) > 1 and not was_stopped(samples):
        yield Notice(f"bon: judging {len(voting)} answers")
        if head is not None:
            found = yield from by_head(task, head, [each.completion.tokens for each in voting])
        else:
            found = yield from by_proxy(task, [whole(each.completion) for each in voting], "bon-judge")
        scores = None if found is None else {each.number: score for each, score in zip(voting, found, strict=True)}
        whose = "by the value head" if head is not None else "by its own judgement"
        for number, score in (scores or {}).items():
            yield SampleNoted(number, f"{100 * score:.0f} % right, {whose}")
    return judge(samples, settings, scores)


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
    by: ValuedBy = "head" if settings.head else "proxy"
    rule = f"{how} of {finished}, judged by {'a value head' if settings.head else 'the model itself'}"
    return replace(count("bon", weighed, rule, planned=settings.n), valued_by=by)
