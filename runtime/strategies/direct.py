"""One sample, taken as it comes: what every other strategy is measured against."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from runtime.base.events import Event
from runtime.base.types import Completion
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict, ballot, count


@dataclass(frozen=True, slots=True)
class Settings:
    """None."""


def run(task: Task, settings: Settings) -> Generator[Event, None, Verdict]:
    return judge((yield from task.draw([task.request()])))


def judge(completions: Sequence[Completion]) -> Verdict:
    """The first of the completions, alone."""
    return count("direct", [ballot(each) for each in completions[:1]], "the only sample", planned=1)


def replay(completions: Sequence[Completion], settings: Settings) -> Verdict:
    """What `run` would decide and spend, had these been its draws: number 0 is the only one."""
    return judge([each for each in completions if each.sample == 0])
