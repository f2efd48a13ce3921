"""The likelihood of given texts: log-probabilities of the tokens of a continuation, which nobody draws.

A continuation is a request of the engine (`Request.given`), so it is read beside other samples that draw, waits its
turn, and begins from the longest cached prefix of its prompt. Its tokens are computed together, as many in one batch as
the backend gives rows of logits. Where nothing but one token follows a prompt, one row serves all of its continuations.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from runtime.base.errors import Aborted, DoesNotFit, UsageError
from runtime.base.events import Event, Interrupted, SampleFinished, value_of
from runtime.base.types import Completion, SamplingParams
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt

# Nothing is drawn; greedy needs no sampler of its own.
_PARAMS = SamplingParams(temperature=0, statistics=True)

# The tokens of a prompt, and those that follow it.
Pair = tuple[tuple[int, ...], tuple[int, ...]]


class Streams(Protocol):
    """The part of an `Engine`, or of a strategy's `Drawer`, that is needed here."""

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]: ...


def likelihoods(
    engine: Streams, prompt: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[tuple[float, ...]]:
    """For each continuation, the natural log-probability of each of its tokens after `prompt` and the tokens before it.

    They are those of the model at temperature 1, whatever a sampler would make of them. The prompt is read once. It
    needs at least one token; the token that begins a text is part of it. Call it between two steps of the engine:
    samples in flight go on meanwhile. The last bits depend on what is computed together: with one slot they are those
    of one text alone, and in company of a Q4_1 model a token's value moved by up to 0.14. Raises as `scoring`.
    """
    return value_of(scoring(engine, [(tuple(prompt), tuple(each)) for each in continuations]))


def scoring(engine: Streams, pairs: Sequence[Pair]) -> Generator[Event, None, list[tuple[float, ...]]]:
    """As `likelihoods`, for continuations of several prompts, yielding the engine's events of progress.

    Raises UsageError for a prompt without tokens, TooLong for a text that is longer than a sequence may be, DoesNotFit
    where the cache has no room for it, Aborted after a stop, Lost if something went away that the model needs.
    """
    if any(not prompt for prompt, _ in pairs):
        raise UsageError("a prompt without tokens has no likelihood after it", hint="begin with a token of the text")
    requests = _requests(pairs)
    found: dict[Pair, tuple[float, ...]] = {}
    for event in engine.stream(requests):
        if isinstance(event, Interrupted):
            raise event.error
        if isinstance(event, SampleFinished):
            request = requests[event.completion.sample]
            _check(request, event.completion)
            prompt = request.prompt.tokens
            found[prompt, request.given] = tuple(each.logprob for each in event.completion.statistics)
            for token, value in zip(request.rivals, event.completion.rivals, strict=True):
                found[prompt, (token,)] = (value,)
        else:
            yield event
    return [found[pair] if pair[1] else () for pair in pairs]


def _requests(pairs: Sequence[Pair]) -> list[Request]:
    """One request for each different continuation; those of one token go with another one of their prompt."""
    by_prompt: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
    for prompt, continuation in pairs:
        if continuation:
            by_prompt.setdefault(prompt, {})[continuation] = None
    requests: list[Request] = []
    for prompt, different in by_prompt.items():
        ordered = sorted(different, key=len, reverse=True)
        alone = [each for each in ordered[1:] if len(each) == 1]
        for given in ordered[: len(ordered) - len(alone)]:
            requests.append(Request(Prompt(prompt), _PARAMS, sample=len(requests), plain=True, given=given))
        first = len(requests) - (len(ordered) - len(alone))
        requests[first] = replace(requests[first], rivals=tuple(token for (token,) in alone))
    return requests


def _check(request: Request, completion: Completion) -> None:
    """Raise unless all tokens were scored."""
    if completion.finish_reason == "cancelled":
        raise Aborted
    if len(completion.tokens) < len(request.given):
        taken = len(request.prompt.tokens) + len(request.given)
        raise DoesNotFit(
            f"the cache has no room for a text of {taken} tokens", hint="shorten the text, or raise --ctx-size"
        )
