"""First Finish Search: draw `n` samples together, take the first that finishes, stop the others (arXiv 2505.18149).

To finish is to end the reply, not the thought. A sample that ends without an answer, or at a limit, is passed over, and
the next one taken. With `k` above 1 it is FFS-k@N (github.com/Aradhye2002/art_of_tts): the first `k` with an answer
vote; a tie goes to the shorter thought.

It rests on correct replies being shorter than wrong ones. In the authors' table with 8 samples DeepSeek-R1 gains by it
(GPQA diamond 0.737, AIME24 0.867), as by a majority vote but for less than half of the sequential tokens, but Qwen3-32B
falls from 0.900 to 0.400 on AIME24. Hence a warning for that family. Their totals leave out the samples that were
stopped; ours do not.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from runtime.base.errors import UsageError
from runtime.base.events import Event, Notice
from runtime.strategies.task import Task, check_samples, fate
from runtime.strategies.verdict import Sample, Unit, Verdict, count

# Families whose short replies are the worse ones, by the table of the authors' follow-up.
LONG_HORIZON = ("qwen3",)


@dataclass(frozen=True, slots=True)
class FirstFinishSettings:
    """`n`: samples drawn together. `k`: how many of the first ones vote."""

    n: int = 8
    k: int = 1

    def __post_init__(self) -> None:
        check_samples(self.n)
        if not 1 <= self.k <= self.n:
            raise UsageError(f"between 1 and {self.n} of {self.n} samples can vote, not {self.k}")


def run(task: Task, settings: FirstFinishSettings) -> Generator[Event, None, Verdict]:
    if task.family.startswith(LONG_HORIZON):
        yield Notice(f"first-finish makes {task.family} models worse, whose short replies are rash; short-m suits them")

    def enough(samples: Sequence[Sample]) -> str | None:
        arrived = sum(each.completion.finish_reason == "stop" and each.answer is not None for each in samples)
        return _why(settings) if arrived == settings.k else None

    samples, why = yield from task.draw_until(task.requests(range(settings.n)), enough)
    return judge(samples, settings, why)


def judge(samples: Sequence[Sample], settings: FirstFinishSettings, why: str = "") -> Verdict:
    """The vote of the `k` shortest that ended with an answer; samples that reached a limit fill up what is missing."""
    samples = sorted(samples, key=lambda each: each.number)
    ranked = sorted((each for each in samples if each.answer is not None), key=_rank)
    first = {each.number for each in ranked[: settings.k]}
    weighted = [_weighed(each, first, why) for each in samples]
    whose = f"majority of the first {len(first)}" if len(first) > 1 else "the first" if first else "none"
    rule = f"{whose} of {settings.n} to finish with an answer"
    unit: Unit = "vote" if settings.k > 1 else "sample"
    return count("first-finish", weighted, rule, planned=settings.n, tie="thought", unit=unit)


def _rank(sample: Sample) -> tuple[bool, int, int]:
    completion = sample.completion
    return completion.finish_reason != "stop", len(completion.tokens), completion.sample


def _weighed(sample: Sample, first: set[int], why: str) -> Sample:
    if sample.number in first or sample.answer is None:
        return replace(sample, note=fate(sample.completion, why))
    return replace(sample, weight=0.0, note="too late")


def _why(settings: FirstFinishSettings) -> str:
    return "another finished first" if settings.k == 1 else f"{settings.k} others finished first"
