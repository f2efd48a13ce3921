"""The task of a strategy: one question, and an engine that draws samples of the answer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleFinished
from runtime.base.types import Completion, SamplingParams
from runtime.engine.allowance import Allowance
from runtime.engine.grammar import Grammar
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.sequence import Demand, Request
from runtime.engine.template import Prompt
from runtime.strategies.bounds import BoundedDrawer, Drawer
from runtime.strategies.paragraphs import Document
from runtime.strategies.verdict import Sample, ended

MOST_SAMPLES = 255


# (the user's message, thinking on, off or None as the user has it) -> the whole prompt, with what was said before it.
MakePrompt = Callable[[str, bool | None], Prompt]


class TokensOf(Protocol):
    """The tokens of a text; what spells a special token is text. `begins`: with the token that begins a text."""

    def __call__(self, text: str, *, begins: bool = False) -> Sequence[int]: ...


def _bytes_of(text: str, *, begins: bool = False) -> Sequence[int]:
    return text.encode()


# The events while samples are drawn; returns the samples in the order in which they ended.
Drawing = Generator[Event, None, list[Sample]]
# The samples that ended so far -> why no more are needed, or None.
Enough = Callable[[Sequence[Sample]], str | None]


@dataclass(frozen=True, slots=True)
class Task:
    """`question` is the user's message alone, and `prompt` what the model reads for it.

    `make_prompt` makes the prompt of another question, or of this one with thinking on or off. `family` is that of the
    catalogue ("qwen3", "deepseek-r1"), or empty; `parameters` of the model, 0 where not known. `grammar`: the form of
    the answers to the question itself.
    `allowance`: what may be drawn in all, None without a limit. `tokens_of` returns the tokens of a plain text.
    `longest`: the most tokens of a prompt with its answer. `documents`: the texts that the question is about, for a
    strategy that reads them in parts; no prompt has them.
    """

    question: str
    prompt: Prompt
    make_prompt: MakePrompt
    params: SamplingParams
    engine: Drawer
    markers: ThinkingMarkers | None = None
    family: str = ""
    parameters: int = 0
    grammar: Grammar | None = None
    allowance: Allowance | None = None
    tokens_of: TokensOf = _bytes_of
    longest: int = 2048
    documents: tuple[Document, ...] = ()

    def within(self, tokens: int | None = None, seconds: float | None = None) -> Task:
        """The same task with at most so many tokens, or seconds from now on, and with what limits it already."""
        allowance = Allowance(tokens, seconds, within=self.allowance)
        return replace(self, engine=BoundedDrawer(self.engine, allowance), allowance=allowance)

    def request(
        self,
        sample: int = 0,
        *,
        question: str | None = None,
        thinking: bool | None = None,
        demand: Demand | None = None,
        **changes: Any,
    ) -> Request:
        """A sample of this question, or of the `question` given instead; `thinking` None is as the user has it.

        `changes` override fields of `params`.
        """
        prompt = self.prompt
        if question is not None or thinking is not None:
            prompt = self.make_prompt(self.question if question is None else question, thinking)
        params = replace(self.params, statistics=True, **changes)
        grammar = self.grammar if question is None else None
        return Request(prompt, params, self.markers, sample, demand, grammar=grammar)

    def shortened(self, tokens: int) -> dict[str, Any]:
        """The changes for `request` that make a sample end after so many tokens, three quarters of them for a thought;
        a lower limit of the user stays."""
        params = self.params
        most = tokens if params.max_tokens is None else min(tokens, params.max_tokens)
        if self.markers is None:
            return {"max_tokens": most}
        thought = most * 3 // 4
        budget = thought if params.think_budget is None else min(thought, params.think_budget)
        return {"max_tokens": most, "think_budget": budget}

    def requests(self, samples: Sequence[int], **kinds: Any) -> list[Request]:
        """The same request for each number; see `request`."""
        if not samples:
            return []
        first = self.request(samples[0], **kinds)
        return [replace(first, sample=sample) for sample in samples]

    def draw(self, requests: Sequence[Request]) -> Drawing:
        """Draw all requests to their end."""
        samples, _ = yield from self.draw_until(requests, lambda samples: None)
        return samples

    def draw_until(
        self, requests: Sequence[Request], enough: Enough, before: Sequence[Sample] = ()
    ) -> Generator[Event, None, tuple[list[Sample], str]]:
        """Draw until the samples that ended are `enough`, those drawn `before` included, then cancel the others.

        Returns the new samples in the order in which they ended, and why they were enough, "" when they were not.
        """
        samples = list(before)
        why = ""
        demands = {request.sample: request.demand for request in requests}
        for event in self.engine.stream(requests):
            if not isinstance(event, SampleFinished):
                yield event
                continue
            completion = event.completion
            yield from ended(completion, samples, fate(completion, why, demands[completion.sample]))
            if not why and completion.finish_reason != "cancelled":
                why = enough(samples) or ""
                if why:
                    self.engine.cancel(demands.keys() - {each.number for each in samples})
        return samples[len(before) :], why


def fate(completion: Completion, why: str, demand: Demand | None = None) -> str:
    """The note on a sample that was stopped: `why` its strategy had enough, or the demand that it did not meet."""
    if completion.finish_reason == "cut" and demand is not None:
        return f"cut: confidence below {demand.confidence:.2f}"
    return f"stopped: {why}" if completion.finish_reason == "cancelled" and why else ""


def was_stopped(samples: Sequence[Sample]) -> bool:
    """Whether the user stopped one of the samples: a strategy that draws in rounds then ends with what it has."""
    return any(sample.completion.finish_reason == "cancelled" for sample in samples)


def check_samples(n: int) -> None:
    """Raise UsageError for a number of samples that cannot be drawn."""
    if not 1 <= n <= MOST_SAMPLES:
        raise UsageError(f"between 1 and {MOST_SAMPLES} samples can be drawn, not {n}")
