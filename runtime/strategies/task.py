"""What a strategy works on: one question, and an engine to draw with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleFinished, SampleNoted
from runtime.base.types import Completion, SamplingParams
from runtime.engine.sequence import Demand, Request
from runtime.engine.thinking import ThinkingMarkers

MOST_SAMPLES = 255


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the model reads it: token ids, and whether they end inside an open thought."""

    tokens: tuple[int, ...]
    starts_in_thought: bool


# (the user's message, thinking on, off or None as the user has it) -> the whole prompt, with what was said before it.
MakePrompt = Callable[[str, bool | None], Prompt]
# A strategy draws and, at its end, returns what it decided.
Drawing = Generator[Event, None, list[Completion]]
# The samples that ended so far -> why no more are needed, or None.
Enough = Callable[[Sequence[Completion]], str | None]


class Drawer(Protocol):
    """What draws samples: an `Engine`, or a `Playback` of what one drew. See there."""

    @property
    def slots(self) -> int: ...
    def stream(self, requests: Sequence[Request]) -> Iterator[Event]: ...
    def cancel(self, samples: Iterable[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Task:
    """`question` is the user's message alone. `family` is that of the catalogue ("qwen3", "deepseek-r1"), or empty."""

    question: str
    make_prompt: MakePrompt
    params: SamplingParams
    engine: Drawer
    markers: ThinkingMarkers | None = None
    family: str = ""

    def request(
        self,
        sample: int = 0,
        *,
        question: str | None = None,
        thinking: bool | None = None,
        demand: Demand | None = None,
        **changes: Any,
    ) -> Request:
        """A sample of this question, or of another in its place. `changes` are those to `params`."""
        prompt = self.make_prompt(self.question if question is None else question, thinking)
        params = replace(self.params, statistics=True, **changes)
        return Request(prompt.tokens, params, self.markers, prompt.starts_in_thought, sample, demand)

    def requests(self, samples: Sequence[int], **kinds: Any) -> list[Request]:
        """The same request for each number; see `request`."""
        if not samples:
            return []
        first = self.request(samples[0], **kinds)
        return [replace(first, sample=sample) for sample in samples]

    def draw(self, requests: Sequence[Request]) -> Drawing:
        """Draw all, handing on what happens; returns the completions in the order in which they ended."""
        ended, _ = yield from self.draw_until(requests, lambda ended: None)
        return ended

    def draw_until(
        self, requests: Sequence[Request], enough: Enough
    ) -> Generator[Event, None, tuple[list[Completion], str]]:
        """Draw until those that ended are `enough`, then cancel the others; returns also why, "" when they were not."""
        ended: list[Completion] = []
        why = ""
        demands = {request.sample: request.demand for request in requests}
        for event in self.engine.stream(requests):
            if not isinstance(event, SampleFinished):
                yield event
                continue
            completion = event.completion
            ended.append(completion)
            if note := fate(completion, why, demands[completion.sample]):
                yield SampleNoted(completion.sample, note)
            yield event
            if not why and completion.finish_reason != "cancelled":
                why = enough(ended) or ""
                if why:
                    self.engine.cancel(demands.keys() - {each.sample for each in ended})
        return ended, why


def fate(completion: Completion, why: str, demand: Demand | None = None) -> str:
    """A note on a sample that was not let end: `why` its strategy had enough, or the demand that it did not meet."""
    if completion.finish_reason == "cut" and demand is not None:
        return f"cut: confidence below {demand.confidence:.2f}"
    return f"stopped: {why}" if completion.finish_reason == "cancelled" and why else ""


def was_stopped(completions: Sequence[Completion]) -> bool:
    """Whether the user had enough: a strategy that draws in rounds then ends with what it has."""
    return any(completion.finish_reason == "cancelled" for completion in completions)


def check_samples(n: int) -> None:
    """Raises UsageError for a number of samples that nobody can draw."""
    if not 1 <= n <= MOST_SAMPLES:
        raise UsageError(f"between 1 and {MOST_SAMPLES} samples can be drawn, not {n}")
