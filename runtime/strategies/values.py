"""Values: how likely replies or their beginnings are right, by a head on the model's hidden states, or by a proxy.

The proxy asks the model itself, and takes the likelihood of "Yes". Nothing is drawn by either.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

import prompts
from runtime.base.events import Event
from runtime.engine.hidden_states import hidden_states
from runtime.strategies.asked_choice import chances
from runtime.strategies.task import Task
from runtime.strategies.unless_stopped import unless_stopped
from runtime.strategies.value_head import ValueHead

# The events while it is valued; None when a stop, the budget or a full context prevented it.
Valuing = Generator[Event, None, list[float] | None]


def by_head(task: Task, head: ValueHead, replies: Sequence[Sequence[int]]) -> Valuing:
    """The value of each beginning of a reply, given as tokens behind the prompt. Raises Incompatible, Lost."""
    texts = [(*task.prompt.tokens, *each) for each in replies]
    states = yield from unless_stopped(task, hidden_states(task.engine, texts), "not valued")
    return None if states is None else head.values(states)


def by_proxy(task: Task, replies: Sequence[str], prompt: Literal["value-judge", "bon-judge"]) -> Valuing:
    """The value of each reply, or of its beginning, given as text: the chance of "Yes" as the answer to the prompt."""
    asked = [prompts.read(prompt).format(question=task.question, answer=each) for each in replies]
    found = yield from chances(task, asked, ("Yes", "No"))
    return None if found is None else [yes for yes, _ in found]
