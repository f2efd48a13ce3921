"""Replies that are drawn in pieces: a strategy looks at each beginning before it goes on.

A piece continues the very tokens that were drawn. While it is drawn, thought and answer are one plain text; they are
told apart from the text of the whole reply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from runtime.base.types import Completion, FinishReason, TokenStatistics
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.engine.thinking import ThinkingSplitter
from runtime.strategies.task import Task


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply so far. `ended`: how it ended, None while it can go on. `sample`: the number of its last piece."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    statistics: tuple[TokenStatistics, ...] = ()
    ended: FinishReason | None = None
    seconds: float = 0.0
    sample: int = 0

    def extended(self, drawn: Completion, most: int) -> Self:
        """The reply with one more plain piece of at most `most` tokens. It can go on when that was cut or all drawn."""
        at_limit = drawn.finish_reason == "length" and len(drawn.tokens) == most
        return replace(
            self,
            tokens=self.tokens + drawn.tokens,
            text=self.text + drawn.answer,
            statistics=self.statistics + drawn.statistics,
            ended=None if drawn.finish_reason == "cancelled" or at_limit else drawn.finish_reason,
            seconds=self.seconds + drawn.seconds,
            sample=drawn.sample,
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """A reply as thought and answer. `thinking_tokens` are estimated by length where the thought has ended."""

    thinking: str
    answer: str
    in_thought: bool
    thinking_tokens: int


def parted(task: Task, reply: Reply) -> Parts:
    """Thought and answer of a reply so far."""
    splitter = ThinkingSplitter(task.markers, task.prompt.starts_in_thought, open_header=task.prompt.open_header)
    parts = splitter.feed(reply.text)
    in_thought = splitter.in_thought
    parts += splitter.finish(complete=reply.ended == "stop")
    thinking, answer = ("".join(text for part, text in parts if part == which) for which in ("thinking", "answer"))
    thinking = thinking[: splitter.thought_end]
    share = len(thinking) / max(len(thinking) + len(answer), 1)
    return Parts(thinking, answer, in_thought, round(len(reply.tokens) * (1.0 if in_thought else share)))


def tokens_left(task: Task, reply: Reply) -> int | None:
    """How many tokens may still be drawn, at least 1; None without a limit."""
    limit = task.params.max_tokens
    return None if limit is None else max(limit - len(reply.tokens), 1)


def next_piece(task: Task, reply: Reply, most: int) -> Request:
    """A request for at most so many more tokens, as plain text. It stays cached for the piece after it."""
    left = tokens_left(task, reply)
    limit = most if left is None else min(most, left)
    request = _request(task, reply, limit, None, stop=(), think_budget=None)
    return replace(request, plain=True, keep_reply=True)


def last_piece(task: Task, reply: Reply) -> Request:
    """A request for the rest of a reply: thought and answer are told apart, and the thought obeys its budget."""
    parts, budget = parted(task, reply), task.params.think_budget
    thought_left = None if budget is None else max(budget - parts.thinking_tokens, 0)
    request = _request(task, reply, tokens_left(task, reply), task.markers, think_budget=thought_left)
    return replace(request, prompt=replace(request.prompt, starts_in_thought=parts.in_thought))


def _request(task: Task, reply: Reply, most: int | None, markers: ThinkingMarkers | None, **changes: Any) -> Request:
    params = replace(task.params, statistics=True, max_tokens=most, extensions=0, **changes)
    return Request(Prompt(task.prompt.tokens + reply.tokens), params, markers)


def joined(task: Task, reply: Reply, last: Completion | None = None) -> Completion:
    """The whole reply as one sample, with the piece that `last_piece` asked for, if there is one."""
    parts = parted(task, reply)
    if last is None:
        return Completion(
            reply.sample, parts.thinking, parts.answer.strip(), reply.tokens, parts.thinking_tokens,
            reply.ended or "cancelled", reply.seconds, statistics=reply.statistics,
        )  # fmt: skip
    return replace(
        last,
        thinking="\n".join(filter(None, (parts.thinking, last.thinking))),
        answer=parts.answer + last.answer,
        tokens=reply.tokens + last.tokens,
        thinking_tokens=parts.thinking_tokens + last.thinking_tokens,
        seconds=reply.seconds + last.seconds,
        statistics=reply.statistics + last.statistics,
    )
