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
from runtime.base.events import Event, SampleFinished, SampleNoted, ThoughtEnded
from runtime.base.types import Completion
from runtime.strategies.playback import played_back
from runtime.strategies.task import Task, check_samples
from runtime.strategies.verdict import Ballot, Verdict, ballot, count


@dataclass(frozen=True, slots=True)
class Settings:
    """`n`: samples drawn together. `m`: how many of the first thoughts vote."""

    n: int = 8
    m: int = 3

    def __post_init__(self) -> None:
        check_samples(self.n)
        if not 1 <= self.m <= self.n:
            raise UsageError(f"between 1 and {self.n} of {self.n} samples can vote, not {self.m}")


def run(task: Task, settings: Settings) -> Generator[Event, None, Verdict]:
    numbers = range(settings.n)
    first: list[int] = []
    ended: list[Completion] = []
    for event in task.engine.stream(task.requests(numbers)):
        if isinstance(event, SampleFinished):
            ended.append(event.completion)
            if event.completion.sample not in first and len(first) == settings.m:
                yield SampleNoted(event.completion.sample, _note(settings))
        yield event
        done = _done(event)
        if done is not None and done not in first and len(first) < settings.m:
            first.append(done)
            if len(first) == settings.m:
                task.engine.cancel(set(numbers).difference(first))
    return judge(ended, settings)


def judge(completions: Sequence[Completion], settings: Settings) -> Verdict:
    """The vote of those with the `m` shortest thoughts."""
    ended = sorted((each for each in completions if each.finish_reason in ("stop", "length")), key=_rank)
    first = {each.sample for each in ended[: settings.m]}
    enough = len(first) == settings.m
    counted = [_counted(each, first, _note(settings) if enough else "")
               for each in sorted(completions, key=lambda each: each.sample)]  # fmt: skip
    whose = "the first thought" if len(first) == 1 else f"majority of the first {len(first)} thoughts"
    return count("short-m", counted, f"{whose} of {settings.n}", planned=settings.n, tie="thought")


def replay(completions: Sequence[Completion], settings: Settings) -> Verdict:
    """What `run` would decide and spend, had these been its draws."""
    return played_back(completions, run, settings)


def _done(event: Event) -> int | None:
    """The sample whose thought is done with this event."""
    if isinstance(event, ThoughtEnded):
        return event.sample
    if isinstance(event, SampleFinished) and event.completion.finish_reason == "stop":
        return event.completion.sample
    return None


def _rank(completion: Completion) -> tuple[bool, int, int]:
    """In the order in which the thoughts are done, those that never are last."""
    closed = completion.thought_closed_by is not None
    length = completion.thinking_tokens if closed else len(completion.tokens)
    return not closed and completion.finish_reason != "stop", length, completion.sample


def _counted(completion: Completion, first: set[int], note: str) -> Ballot:
    if completion.sample in first:
        return ballot(completion)
    return replace(ballot(completion), weight=0.0, note=note)


def _note(settings: Settings) -> str:
    return "stopped: another thought was done" if settings.m == 1 else f"stopped: {settings.m} thoughts were done"
