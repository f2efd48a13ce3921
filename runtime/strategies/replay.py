"""Recorded samples in place of an engine, so that strategies can be compared on the same samples.

The strategy itself runs. Every recorded sample has a slot and grows by one step at a time. Exact for samples that think
from their first token on or not at all, and that ended by themselves or by their token limit; a stop string looks like
one step more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleFinished, ThoughtEnded
from runtime.base.types import Completion, FinishReason, SamplingParams
from runtime.engine.confidence import RunningMean
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.strategies.task import Task


class Replay:
    """A `Drawer` of recorded samples, found by their numbers. Yields no text, only the ends of thoughts and samples."""

    def __init__(self, completions: Sequence[Completion]) -> None:
        self._recorded = {each.sample: each for each in completions}
        self._unwanted: set[int] = set()

    def task(self) -> Task:
        """A task whose samples are the recorded ones."""
        prompt = Prompt((0,))
        return Task("", prompt, lambda question, thinking: prompt, SamplingParams(), self)

    @property
    def slots(self) -> int:
        return len(self._recorded)

    def cancel(self, samples: Iterable[int]) -> None:
        self._unwanted.update(samples)

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """As `Engine.stream`. Raises UsageError for a sample that was not recorded."""
        self._unwanted.clear()
        missing = [request.sample for request in requests if request.sample not in self._recorded]
        if missing:
            raise UsageError(f"sample {missing[0]} was never drawn", hint="set n to the number of samples at most")
        running = {request.sample: _RecordedSample(self._recorded[request.sample], request) for request in requests}
        while running:
            for sample, recorded in list(running.items()):
                yield from recorded.step()
                if recorded.ended:
                    del running[sample]
            for sample in [sample for sample in running if sample in self._unwanted]:
                yield SampleFinished(running.pop(sample).ended_early("cancelled"))
            self._unwanted.clear()


class _RecordedSample:
    """One recorded sample that grows again, as far as the request allows."""

    def __init__(self, completion: Completion, request: Request) -> None:
        self._whole = completion
        self._demand = request.demand
        self._group = RunningMean(request.demand.window) if request.demand else None
        self._length, *self._lengths = _lengths(completion)
        self.ended = False

    def step(self) -> Iterator[Event]:
        before, self._length = self._length, self._lengths.pop(0)
        thought = self._whole.thinking_tokens
        if self._whole.thought_closed_by is not None and before <= thought < self._length:
            yield ThoughtEnded(self._whole.sample)
        if not self._lengths:
            self.ended = True
            yield SampleFinished(self._whole)
        elif self._below_demand(before):
            self.ended = True
            yield SampleFinished(self.ended_early("cut"))

    def _below_demand(self, drawn: int) -> bool:
        """Whether the confidence is too low with the token at index `drawn`."""
        if self._demand is None or self._group is None:
            return False
        mean = self._group.add(self._whole.statistics[drawn].confidence)
        return mean is not None and mean < self._demand.confidence

    def ended_early(self, reason: FinishReason) -> Completion:
        """The sample as it is now, without text: which part of the text was drawn by now is not known."""
        whole, length = self._whole, self._length
        return replace(
            whole,
            thinking="",
            answer="",
            tokens=whole.tokens[:length],
            thinking_tokens=min(whole.thinking_tokens, length),
            finish_reason=reason,
            seconds=whole.seconds * length / max(len(whole.tokens), 1),
            statistics=whole.statistics[:length],
        )


def _lengths(completion: Completion) -> list[int]:
    """The number of tokens before the first step and after each; a forced token comes with the one before it."""
    forced = [math.isnan(each.logprob) for each in completion.statistics] or [False] * len(completion.tokens)
    lengths = [length for length, is_forced in enumerate(forced) if not is_forced]
    if completion.finish_reason == "stop":
        # The end is drawn like a token.
        lengths.append(len(completion.tokens))
    return [*(lengths or [0]), len(completion.tokens)]
