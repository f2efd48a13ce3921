"""NoThinking: `n` samples that begin with a closed, empty thought, and the surest answer of them (arXiv 2504.09858).

The prompt closes the thought, so each sample is only a solution, and many of them cost as much as one thought. `pick`
says how to choose by self-certainty (arXiv 2502.18581), the mean divergence of the model's distribution from the
uniform one: `borda` adds up points by rank, (n - rank + 1) ** 0.5, for equal answers; `best` takes the answer of the
surest sample. Samples without an answer get no points; when none has one, the surest is shown.

The paper, R1-Distill-Qwen-32B: 51.3 against 28.9 on AMC 2023 at 700 tokens, and up to 9 times lower latency at about
the same accuracy.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from runtime.base.events import Event
from runtime.engine import confidence
from runtime.strategies import vote
from runtime.strategies.task import Task, check_samples
from runtime.strategies.verdict import Sample, Verdict, count

Pick = Literal["borda", "best"]

_RULES: dict[Pick, str] = {
    "borda": "votes weighted by Borda points of self-certainty",
    "best": "the answer of highest self-certainty",
}


@dataclass(frozen=True, slots=True)
class NoThinkVoteSettings:
    """`n`: samples. `pick`: how one answer is chosen."""

    n: int = 8
    pick: Pick = "borda"

    def __post_init__(self) -> None:
        check_samples(self.n)


def run(task: Task, settings: NoThinkVoteSettings) -> Generator[Event, None, Verdict]:
    return judge((yield from task.draw(task.requests(range(settings.n), thinking=False))), settings)


def judge(samples: Sequence[Sample], settings: NoThinkVoteSettings) -> Verdict:
    """The choice among these samples."""
    samples = sorted(samples, key=lambda each: each.number)
    voting = [each for each in samples if each.answer is not None]
    if settings.pick == "borda":
        weighted: Sequence[Sample] = vote.weighed(samples, "certainty")
    else:
        best = max(voting, key=_certainty, default=None)
        weighted = [replace(each, weight=float(each is best)) for each in samples]
    finished = [each for each in samples if each.finished]
    rule = f"{_RULES[settings.pick]} of {len(finished)} without thought"
    verdict = count("no-think-vote", weighted, rule, planned=settings.n)
    if voting or not finished:
        return verdict
    return replace(verdict, chosen=max(finished, key=_certainty).completion)


def _certainty(sample: Sample) -> float:
    return confidence.self_certainty(sample.completion.statistics)
