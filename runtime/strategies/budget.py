"""Budget forcing: one sample whose thought is kept short, or made longer (s1, arXiv 2501.19393).

`tokens`: at most so many tokens of thought, then it is closed by force; 0 leaves the limit as the user set it.
`extensions`: so many times the end of the thought is left out and "Wait" put in its place, while tokens are left. Only
models of `EXTENDABLE` families learnt thoughts that go on so; for others the thought ends where it ends, unless `force`
is set. On the embedded model, which never saw "Wait", one extension cost 51 points (docs/results.md).

The paper, s1-32B: AIME24 50.0 without, 56.7 with forcing; one extension is the README's default
(github.com/simplescaling/s1), with at most 32000 tokens of thought, drawn greedily.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runtime.base.errors import UsageError
from runtime.base.events import Event, Notice
from runtime.strategies.task import Task
from runtime.strategies.verdict import Sample, Verdict, count

# Families of the catalogue whose thoughts were trained by reinforcement or distilled from such ones, in which "Wait" is
# a usual beginning of a sentence (arXiv 2501.12948, section 2.2; 2501.19393, section 4).
EXTENDABLE = ("deepseek-r1", "qwen3", "qwq", "phi-4-reasoning", "magistral")


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """`tokens`: of thought at most, 0 for as many as there would be. `extensions`: of the thought. `force`: by any
    model."""

    tokens: int = 0
    extensions: int = 1
    force: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise UsageError(f"a thought cannot have {self.tokens} tokens")
        if not 0 <= self.extensions <= 100:
            raise UsageError(f"a thought can be extended between 0 and 100 times, not {self.extensions}")


def run(task: Task, settings: BudgetSettings) -> Generator[Event, None, Verdict]:
    if settings.extensions and not settings.force and not task.family.startswith(EXTENDABLE):
        whose = f"models of the family {task.family}" if task.family else "this model's family"
        yield Notice(f'budget: nothing says that {whose} learnt to go on after "Wait", so no thought is extended')
        settings = replace(settings, extensions=0)
    changes: dict[str, Any] = {"extensions": settings.extensions}
    if settings.tokens:
        changes["think_budget"] = settings.tokens
    return judge((yield from task.draw([task.request(**changes)])), settings)


def judge(samples: Sequence[Sample], settings: BudgetSettings) -> Verdict:
    """The first of the samples, alone."""
    limit = f"at most {settings.tokens} tokens of thought" if settings.tokens else "a thought of any length"
    times = "once" if settings.extensions == 1 else f"{settings.extensions} times"
    longer = f", extended at most {times}" if settings.extensions else ""
    return count("budget", samples[:1], f"one sample with {limit}{longer}", planned=1)
