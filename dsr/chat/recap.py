"""The summary of a conversation's oldest exchanges, which the model itself writes before they are forgotten."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import prompts
from dsr.chat.forgetting import Forgotten, beginning, remaining
from dsr.ui.interrupts import is_ending
from runtime.base.errors import Lost
from runtime.base.events import Event, Interrupted, Progress, SampleFinished, TextDrawn
from runtime.base.types import Message
from runtime.engine.sequence import Request
from runtime.engine.template import answered
from runtime.strategies.bounds import Drawer

_JOB = "summing up the oldest exchanges"
_MOST_TOKENS = 512  # a page of notes; reading it again costs little
_SHARE = 8  # of the context, where that is short


@dataclass(frozen=True, slots=True)
class Recap:
    """`summary` of the oldest exchanges. `missing` says why it does not cover all of them; "" if it does."""

    summary: str
    missing: str = ""


def longest_summary(longest: int) -> int:
    """The most tokens of a summary, if one sample with its prompt takes at most `longest` tokens."""
    return min(_MOST_TOKENS, longest // _SHARE)


def sum_up(
    turns: Sequence[Message],
    before: Forgotten,
    count: int,
    make_request: Callable[[list[Message]], Request],
    limit: int,
    engine: Drawer,
) -> Generator[Event, None, Recap]:
    """Sum up the `count` oldest exchanges of `turns`; those in `before` are forgotten already, and perhaps summed up.

    Each request is the conversation up to the last of them, then the instruction to sum up: the engine has all but the
    instruction in its cache. If that is longer than `limit` tokens, the exchanges are summed up in parts, each with the
    summary so far. Raises Aborted after a signal that ends dsr; Ctrl-C only ends the summary.
    """
    said, instruction = answered(turns), Message("user", prompts.read("summary-request"))
    done = before
    while done.exchanges < count:

        def request(number: int, done: Forgotten = done) -> Request:
            return make_request(remaining([*beginning(said, number), instruction], done))

        left = range(done.exchanges + 1, count + 1)
        fitting = bisect_right(left, limit, key=lambda number: len(request(number).prompt.tokens))
        if not fitting:
            return Recap(done.summary, "an exchange is too long for a summary")
        number = left[fitting - 1]
        summary, failure = yield from _draw(request(number), engine)
        if failure:
            return Recap(done.summary, failure)
        done = replace(done, exchanges=number, summary=summary)
    return Recap(done.summary)


def _draw(request: Request, engine: Drawer) -> Generator[Event, None, tuple[str, str]]:
    """The answer, or why there is none. Its text is shown as progress only."""
    summary, failure, drawn, most = "", "", 0, request.params.max_tokens or 0
    for event in engine.stream([request]):
        if isinstance(event, TextDrawn):
            drawn += 1
            yield Progress(_JOB, "", min(drawn, most - 1), most, "tokens")
        elif isinstance(event, SampleFinished):
            summary = event.completion.answer.strip()
        elif isinstance(event, Interrupted):
            if is_ending() or isinstance(event.error, Lost):
                raise event.error
            failure = "the summary was stopped"
        else:
            yield event
    yield Progress(_JOB, "", most, most, "tokens")
    return summary, failure or ("" if summary else "the summary came out empty")
