"""One sample, taken as it comes. Every other strategy is compared with it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from runtime.base.events import Event
from runtime.strategies.task import Task
from runtime.strategies.verdict import Sample, Verdict, count


@dataclass(frozen=True, slots=True)
class DirectSettings:
    """No settings."""


def run(task: Task, settings: DirectSettings) -> Generator[Event, None, Verdict]:
    return judge((yield from task.draw([task.request()])))


def judge(samples: Sequence[Sample]) -> Verdict:
    """The first of the samples, alone."""
    return count("direct", samples[:1], "the only sample", planned=1)
