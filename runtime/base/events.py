"""Events that the libraries send to their caller while they work. A listener is any callable that takes an event."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, TypeVar

from runtime.base.errors import Aborted
from runtime.base.types import Completion, TokenLogprob


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job: `done` of `total` (0 if unknown), in bytes, tokens, files, steps or questions.

    `job` names the work ("loading", "reading the prompt"), `item` its object ("nano.gguf").
    """

    job: str
    item: str
    done: int
    total: int
    unit: Literal["bytes", "tokens", "files", "steps", "questions", "percent"]

    @property
    def finished(self) -> bool:
        return self.total > 0 and self.done >= self.total


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know, in one line, although nothing failed."""

    text: str


@dataclass(frozen=True, slots=True)
class TextDrawn:
    """A sample grew by some text; never a part of a character, never a piece of a thinking tag."""

    sample: int
    part: Literal["thinking", "answer"]
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallGrew:
    """A call of a tool in a sample grew: `arguments` is the text that was added to its JSON arguments.

    `index` counts the calls of the sample from 0. The first event of a call has its `id` and `name`, and so have the
    later ones. The arguments of a complete call are valid JSON, if `Completion.calls` has it.
    """

    sample: int
    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenDrawn:
    """A sample drew a token. Comes before the text that the token completes; only with `SamplingParams.top_logprobs`.

    Its bytes are `piece`, and `logprob` is the model's log-probability in nats. `top` are the likeliest tokens, whether
    or not the sampler or a grammar allowed them. The marks of a thought are tokens of the thought. There is no event
    for a token that nobody drew, such as the end of a thought that was closed by force.
    """

    sample: int
    part: Literal["thinking", "answer"]
    token: int
    piece: bytes
    logprob: float
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class ThoughtEnded:
    """The thinking of a sample ended, by the model or by force, and its answer begins."""

    sample: int


@dataclass(frozen=True, slots=True)
class SampleNoted:
    """What a strategy decided about a sample, in a few words: "stopped: the leader cannot be caught"."""

    sample: int
    text: str


@dataclass(frozen=True, slots=True)
class TallyChanged:
    """A sample that is about to finish was counted: its answer, and the votes with it.

    `votes` are (answer as its first voter wrote it, number of votes) in the order in which the answers appeared;
    `without` counts the samples without an answer, and `answer` is None for such a sample.
    """

    sample: int
    answer: str | None
    votes: tuple[tuple[str, int], ...]
    without: int


@dataclass(frozen=True, slots=True)
class SampleFinished:
    """A sample ended; its slot is free again."""

    completion: Completion


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The drawing was interrupted: the user stopped it, or `error` is the Lost that says what went away.

    The samples that had not finished were finished as "cancelled" before.
    """

    error: Aborted


Event = (
    Progress
    | Notice
    | TextDrawn
    | ToolCallGrew
    | TokenDrawn
    | ThoughtEnded
    | SampleNoted
    | TallyChanged
    | SampleFinished
    | Interrupted
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that does nothing."""


_Value = TypeVar("_Value")


def value_of(running: Generator[Event, None, _Value], listen: Listener = ignore) -> _Value:
    """Run work that yields events to its end; returns its value. `listen` hears the events, and may raise."""
    while True:
        try:
            event = next(running)
        except StopIteration as end:
            value: _Value = end.value
            return value
        listen(event)
