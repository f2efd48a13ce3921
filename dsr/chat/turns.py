"""Questions, answers, and calls with their results, in a row."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.base.types import Message


def before_last_question(turns: Sequence[Message]) -> tuple[Message, ...]:
    """The turns before the last question; none where no question was asked."""
    asked = [number for number, turn in enumerate(turns) if turn.role == "user"]
    return tuple(turns[: asked[-1]]) if asked else ()


def lacks_answer(turns: Sequence[Message]) -> bool:
    """Whether the last question was stopped before its answer. `answered` leaves such a question out of prompts."""
    return bool(turns) and not (turns[-1].role == "assistant" and turns[-1].content.strip())


def finished(turns: Sequence[Message]) -> list[Message]:
    """The turns without questions whose calls were not followed by an answer: templates refuse a question there."""
    kept: list[Message] = []
    begun = [number for number, turn in enumerate(turns) if turn.role == "user"]
    for start, end in zip([0, *begun], [*begun, len(turns)], strict=True):
        exchange = turns[start:end]
        called = any(turn.calls for turn in exchange)
        kept += [] if called and lacks_answer(exchange) else exchange
    return kept
