"""Think Twice: answer, then answer again knowing only the last answer (arXiv 2503.19855).

    round 1: the question
    round k: the question, and "The assistant's previous answer is: <answer> ... </answer>, and please re-answer."

What is carried over is the text after the thought of the last round that gave one, never the thought. Each round is a
request of its own. The paper reports AIME 2024 for QwQ-32B 80.3 -> 82.1 and for R1 79.7 -> 82.0 with the second round,
and figures up to the fourth.

Ours: a round without an answer carries nothing, so the next one repeats what was asked before; the verdict is the last
round that gave an answer.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import prompts
from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleNoted
from runtime.base.types import Completion
from runtime.strategies.task import Task, was_stopped
from runtime.strategies.verdict import Sample, Verdict, count


@dataclass(frozen=True, slots=True)
class RoundsSettings:
    """`n`: rounds."""

    n: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.n <= 100:
            raise UsageError(f"between 1 and 100 rounds can be made, not {self.n}")


def run(task: Task, settings: RoundsSettings) -> Generator[Event, None, Verdict]:
    rounds: list[Sample] = []
    question = task.question
    for number in range(settings.n):
        yield SampleNoted(number, f"round {number + 1} of {settings.n}")
        rounds += yield from task.draw([task.request(number, question=question)])
        if was_stopped(rounds):
            break
        question = next_question(task.question, rounds[-1].completion) or question
    return judge(rounds)


def next_question(question: str, last: Completion) -> str | None:
    """The question of the next round, or None when the last round gave no answer."""
    answer = last.answer.strip()
    return prompts.read("think-twice").format(question=question, answer=answer) if answer else None


def judge(rounds: Sequence[Sample]) -> Verdict:
    """The answer of the last round that gave one. Each round waits for the one before."""
    samples = [replace(each, weight=0.0, note=f"round {number}") for number, each in enumerate(rounds, 1)]
    answered = [number for number, each in enumerate(samples) if each.answer is not None]
    if answered:
        samples[answered[-1]] = replace(samples[answered[-1]], weight=1.0)
        rule = f"the last answer that was given, in round {answered[-1] + 1} of {len(rounds)}"
    else:
        rule = f"none of {len(rounds)} rounds gave an answer"
    verdict = count(
        "rounds", samples, rule, sequential=sum(len(each.completion.tokens) for each in rounds), unit="turn"
    )
    return replace(verdict, chosen=rounds[answered[-1]].completion if answered else verdict.chosen, saved=0)
