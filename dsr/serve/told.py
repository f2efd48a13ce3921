"""What an engine process tells of an ask, event by event, and how that crosses the pipe: [tag, field, field, ...]."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from runtime.base.events import (
    Notice,
    Progress,
    SampleNoted,
    TallyChanged,
    TextDrawn,
    ThoughtEnded,
    TokenDrawn,
    ToolCallGrew,
)
from runtime.base.types import FinishReason, TokenLogprob, ToolCall


@dataclass(frozen=True, slots=True)
class Begun:
    """The prompt is made, and waits for its turn. `sampling` are the settings in force, as `effective` has them."""

    prompt_tokens: int
    sampling: dict[str, Any]
    seed: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A sample ended. `tokens` are all of its reply, `cached` those of its prompt that were not read again.

    `stop_string` is the one that ended it; empty for any other end.
    """

    sample: int
    finish_reason: FinishReason
    thinking: str
    answer: str
    tokens: int
    thinking_tokens: int
    cached: int
    seconds: float
    stop_string: str = ""
    first_token_seconds: float = 0.0
    latency: float = 0.0
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Decided:
    """A strategy decided. `verdict` is that of `dsr chat --json`; `chosen` is the sample to show, None without one."""

    verdict: dict[str, Any]
    chosen: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The ask failed. `kind` is the name of the error's class; nothing follows.

    For a prompt that is too long, `tokens` and `longest` are those of `TooLong`; else they are 0. `place` is the field
    of the request that is wrong, if it is known.
    """

    kind: str
    message: str
    hint: str | None = None
    tokens: int = 0
    longest: int = 0
    place: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The ask is answered; nothing follows. `disk_use`: what was read meanwhile by a model that runs from the disk, as
    `DiskUse.as_json` has it; answers that were drawn together share it."""

    disk_use: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a query; nothing follows."""

    value: Any


Told = (
    Begun
    | Progress
    | Notice
    | TextDrawn
    | ToolCallGrew
    | TokenDrawn
    | ThoughtEnded
    | SampleNoted
    | TallyChanged
    | Ended
    | Decided
    | Failed
    | Done
    | Result
)
_KINDS: dict[str, type[Any]] = {
    "begun": Begun,
    "progress": Progress,
    "notice": Notice,
    "text": TextDrawn,
    "call": ToolCallGrew,
    "token": TokenDrawn,
    "thought_ended": ThoughtEnded,
    "noted": SampleNoted,
    "tally": TallyChanged,
    "ended": Ended,
    "verdict": Decided,
    "failed": Failed,
    "done": Done,
    "result": Result,
}
TAGS: dict[type[Any], str] = {kind: tag for tag, kind in _KINDS.items()}
LAST = (Failed, Done, Result)


def wire(told: Told) -> list[Any]:
    """As JSON."""
    if type(told) is TextDrawn:  # by far the most
        return ["text", told.sample, told.part, told.text]
    values = [getattr(told, field.name) for field in fields(told)]
    if type(told) is TokenDrawn:
        values = [told.sample, told.part, told.token, [*told.piece], told.logprob]
        values.append([[each.token, [*each.piece], each.logprob] for each in told.top])
    elif type(told) is Ended:
        values[-1] = [[each.id, each.name, each.arguments] for each in told.calls]
    return [TAGS[type(told)], *values]


def told_of(wire: list[Any]) -> Told:
    """What `wire` wrote."""
    tag, *values = wire
    if tag == "tally":
        values[2] = tuple(map(tuple, values[2]))
    elif tag == "token":
        values[3] = bytes(values[3])
        values[5] = tuple(TokenLogprob(token, bytes(piece), logprob) for token, piece, logprob in values[5])
    elif tag == "ended":
        values[-1] = tuple(ToolCall(*each) for each in values[-1])
    told: Told = _KINDS[tag](*values)
    return told


def as_event(told: Told) -> dict[str, Any]:
    """As dsr's own event for programs: its type and its fields. Bytes are lists of numbers."""
    if type(told) is TokenDrawn:
        names = [field.name for field in fields(told)]
        return {"type": "token", **dict(zip(names, wire(told)[1:], strict=True))}
    return {"type": TAGS[type(told)], **asdict(told)}
