"""short-m@k: draw `n` samples together and stop when the first `m` thoughts are done (arXiv 2505.17813).

Those `m` go on to write their answers, the others are stopped; the majority of the `m` decides, a tie goes to the
shorter thought. Where a model marks no thought, the first `m` to finish count. A thought that is closed by a budget is
done; one that runs into the end of the context is not.

The paper: short-3 is better than a majority vote at all budgets and up to 33 % faster, short-1 needs up to 40 % fewer
tokens of thought; the shortest chain of a question is up to 34.5 % more often right than the longest.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleFinished, ThoughtEnded
from runtime.strategies.task import Task, check_samples
from runtime.strategies.verdict import Sample, Verdict, count, ended


@dataclass(frozen=True, slots=True)
class ShortMSettings:
    """`n`: samples drawn together. `m`: how many of the first thoughts vote."""

    n: int = 8
    m: int = 3

    def __post_init__(self) -> None:
        check_samples(self.n)
        if not 1 <= self.m <= self.n:
            raise UsageError(f"between 1 and {self.n} of {self.n} samples can vote, not {self.m}")


def run(task: Task, settings: ShortMSettings) -> Generator[Event, None, Verdict]:
    numbers = range(settings.n)
    first: list[int] = []
    samples: list[Sample] = []
    for event in task.engine.stream(task.requests(numbers)):
        if isinstance(event, SampleFinished):
            too_late = event.completion.sample not in first and len(first) == settings.m
            yield from ended(event.completion, samples, _note(settings) if too_late else "")
        else:
            yield event
        done = _done(event)
        if done is not None and done not in first and len(first) < settings.m:
            first.append(done)
            if len(first) == settings.m:
                task.engine.cancel(set(numbers).difference(first))
    return judge(samples, settings)


def judge(samples: Sequence[Sample], settings: ShortMSettings) -> Verdict:
    """The vote of those with the `m` shortest thoughts."""
    ranked = sorted((each for each in samples if each.finished), key=_rank)
    first = {each.number for each in ranked[: settings.m]}
    note = _note(settings) if len(first) == settings.m else ""
    weighted = [
        each if each.number in first else replace(each, weight=0.0, note=note)
        for each in sorted(samples, key=lambda each: each.number)
    ]
    whose = "the first thought" if len(first) == 1 else f"majority of the first {len(first)} thoughts"
    return count("short-m", weighted, f"{whose} of {settings.n}", planned=settings.n, tie="thought")


def _done(event: Event) -> int | None:
    """The sample whose thought ends with this event."""
    if isinstance(event, ThoughtEnded):
        return event.sample
    if isinstance(event, SampleFinished) and event.completion.finish_reason == "stop":
        return event.completion.sample
    return None


def _rank(sample: Sample) -> tuple[bool, int, int]:
    """The order in which the thoughts end; a thought that never ends comes last."""
    completion = sample.completion
    closed = completion.thought_closed_by is not None
    length = completion.thinking_tokens if closed else len(completion.tokens)
    return not closed and completion.finish_reason != "stop", length, completion.sample


def _note(settings: ShortMSettings) -> str:
    return "stopped: another thought was done" if settings.m == 1 else f"stopped: {settings.m} thoughts were done"
