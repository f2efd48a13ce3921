"""The model itself as a judge, without drawing: how likely it finds each of a few replies.

The reply is not drawn. The log-probabilities of the given replies after the prompt are compared, so a judgement costs
the reading of one prompt.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from math import fsum

from runtime.base.events import Event
from runtime.engine.likelihood import scoring
from runtime.strategies.random_choice import softmax
from runtime.strategies.task import Task
from runtime.strategies.unless_stopped import unless_stopped

# The events while it is judged; None when a stop, the budget or a full context prevented it.
Judging = Generator[Event, None, list[tuple[float, ...]] | None]


def mean_logprobs(task: Task, asked: Sequence[tuple[str, Sequence[str]]]) -> Judging:
    """For each (question, replies) the mean log-probability of each reply's tokens, in nats, without a thought."""
    pairs, counts = [], []
    for question, replies in asked:
        prompt = task.make_prompt(question, False)
        counts.append(len(replies))
        pairs += [(tuple(prompt.tokens), tuple(task.tokens_of(reply))) for reply in replies]
    values = yield from unless_stopped(task, scoring(task.engine, pairs), "not judged")
    if values is None:
        return None
    means = iter([fsum(each) / len(each) if each else 0.0 for each in values])
    return [tuple(next(means) for _ in range(count)) for count in counts]


def chances(task: Task, questions: Sequence[str], replies: Sequence[str]) -> Judging:
    """For each question the probability of each reply, if it must be one of them."""
    found = yield from mean_logprobs(task, [(question, replies) for question in questions])
    return None if found is None else [tuple(softmax(each)) for each in found]
