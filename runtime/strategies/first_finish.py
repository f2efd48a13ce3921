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
from runtime.base.types import Completion
from runtime.strategies.playback import played_back
from runtime.strategies.task import Task, check_samples, fate
from runtime.strategies.verdict import Ballot, Unit, Verdict, ballot, count

# Families whose short replies are the worse ones, by the table of the authors' follow-up.
LONG_HORIZON = ("qwen3",)


@dataclass(frozen=True, slots=True)
class Settings:
    """`n`: samples drawn together. `k`: how many of the first ones vote."""

    n: int = 8
    k: int = 1

    def __post_init__(self) -> None:
        check_samples(self.n)
        if not 1 <= self.k <= self.n:
            raise UsageError(f"between 1 and {self.n} of {self.n} samples can vote, not {self.k}")


def run(task: Task, settings: Settings) -> Generator[Event, None, Verdict]:
    if task.family.startswith(LONG_HORIZON):
        yield Notice(f"first-finish makes {task.family} models worse, whose short replies are rash; short-m suits them")

    def enough(ended: Sequence[Completion]) -> str | None:
        arrived = sum(each.finish_reason == "stop" and ballot(each).answer is not None for each in ended)
        return _why(settings) if arrived == settings.k else None

    ended, why = yield from task.draw_until(task.requests(range(settings.n)), enough)
    return judge(ended, settings, why)


def judge(completions: Sequence[Completion], settings: Settings, why: str = "") -> Verdict:
    """The vote of the `k` shortest that ended with an answer, or of those that reached a limit where they are fewer."""
    ballots = [ballot(each) for each in sorted(completions, key=lambda each: each.sample)]
    ranked = sorted((each for each in ballots if each.answer is not None), key=_rank)
    first = {each.completion.sample for each in ranked[: settings.k]}
    counted = [_counted(each, first, why) for each in ballots]
    whose = f"majority of the first {len(first)}" if len(first) > 1 else "the first" if first else "none"
    rule = f"{whose} of {settings.n} to finish with an answer"
    unit: Unit = "vote" if settings.k > 1 else "sample"
    return count("first-finish", counted, rule, planned=settings.n, tie="thought", unit=unit)


def replay(completions: Sequence[Completion], settings: Settings) -> Verdict:
    """What `run` would decide and spend, had these been its draws."""
    return played_back(completions, run, settings)


def _rank(voter: Ballot) -> tuple[bool, int, int]:
    completion = voter.completion
    return completion.finish_reason != "stop", len(completion.tokens), completion.sample


def _counted(voter: Ballot, first: set[int], why: str) -> Ballot:
    if voter.completion.sample in first or voter.answer is None:
        return replace(voter, note=fate(voter.completion, why))
    return replace(voter, weight=0.0, note="too late")


def _why(settings: Settings) -> str:
    return "another finished first" if settings.k == 1 else f"{settings.k} others finished first"
