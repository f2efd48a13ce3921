"""The events of a sample whose broken call is drawn once more, from the mistake on, before the sample ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runtime.base.errors import DsrError
from runtime.base.events import (
    Event,
    Interrupted,
    Notice,
    SampleFinished,
    TextDrawn,
    TokenDrawn,
    ToolCallGrew,
)
from runtime.base.quoted import quoted_name
from runtime.base.types import Completion, ToolCall
from runtime.engine.backend import Backend
from runtime.engine.call_retry import Retry, retry_of
from runtime.engine.grammar import Grammar
from runtime.engine.sequence import Request


class CallRepair:
    """Takes the events of one sample that may call tools, and gives out those to tell.

    A call whose arguments are no JSON, in a reply that the model ended, is drawn once more: `feed` keeps the end of the
    sample and sets `broken`. Then either `request` says what to draw, and `feed_again` takes its events, or `give_up`
    ends the sample. Text and calls behind the mistake wait until then, since some clients take one call after another.

    A sample ends with "stop" only if all its calls are complete. Otherwise it ends with "length", as any answer without
    its end does.
    """

    def __init__(self, request: Request) -> None:
        self._first = request
        self._may_hold = request.calling is not None and request.calling.form.writes_json
        self._held: list[Event] = []
        self._holds = False
        self._open: list[str] = []  # the arguments of the call that grows
        self._index = -1
        self._retry: Retry | None = None
        self.broken: Completion | None = None

    def feed(self, event: Event) -> list[Event]:
        """The events to tell after one of the first try."""
        if isinstance(event, SampleFinished):
            return self._ended(event.completion)
        if isinstance(event, TextDrawn) and event.part == "answer":
            self._leave_call(-1)
        elif isinstance(event, ToolCallGrew):
            self._leave_call(event.index)
            self._open.append(event.arguments)
        else:
            return [event]
        if self._holds:
            self._held.append(event)
            return []
        return [event]

    def _leave_call(self, index: int) -> None:
        """Hold everything back from now on if the call that grew is left with a mistake."""
        if index == self._index:
            return
        if self._may_hold and self._index >= 0 and not ToolCall("", "", "".join(self._open)).complete:
            self._holds = True
        self._index, self._open = index, []

    def _ended(self, completion: Completion) -> list[Event]:
        if completion.finish_reason != "stop" or all(call.complete for call in completion.calls):
            return self._end(completion)
        self.broken = completion
        if not self._may_hold:
            return self.give_up()
        return []

    def _end(self, completion: Completion) -> list[Event]:
        self.broken = None
        held, self._held = self._held, []
        return [*held, SampleFinished(completion)]

    def request(self, backend: Backend) -> Request | None:
        """What to draw again; None if nothing can be. Tokenizes the whole prompt; any thread may call this."""
        first, completion = self._first, self.broken
        if completion is None or first.calling is None:
            return None
        reply = b"".join(map(backend.piece, completion.tokens)).decode("utf-8", "replace")
        retry = retry_of(first.prompt, reply, first.markers, first.calling)
        limit = first.params.max_tokens
        left = None if limit is None else limit - len(completion.tokens)
        if retry is None or retry.index >= len(completion.calls) or (left is not None and left < 1):
            return None
        if completion.calls[retry.index].arguments != retry.arguments:
            return None  # it was read in another way while it came
        name = completion.calls[retry.index].name
        schemas = [each.parameters for each in first.calling.tools if each.name == name]
        grammar = _first_usable(schemas, retry, backend)
        if grammar is None:
            return None
        self._retry = retry
        params = replace(first.params, max_tokens=left, stop=(), think_budget=None, extensions=0)
        prompt = retry.prompt.tokenized(backend.tokenize)
        return Request(prompt, params, None, first.sample, plain=True, grammar=grammar)

    def feed_again(self, event: Event) -> list[Event]:
        """The events to tell after one of the second try."""
        retry, first = self._retry, self.broken
        if isinstance(event, (TokenDrawn, Notice, Interrupted)):
            return [event]
        if retry is None or first is None:
            return []
        if isinstance(event, SampleFinished):
            return self._joined(first, retry, event.completion)
        if isinstance(event, TextDrawn):
            call = first.calls[retry.index]
            return [ToolCallGrew(first.sample, retry.index, call.id, call.name, event.text)]
        return []  # such as the progress of reading a prompt that is read already

    def _joined(self, first: Completion, retry: Retry, again: Completion) -> list[Event]:
        call = first.calls[retry.index]
        repaired = replace(call, arguments=retry.arguments + again.answer)
        calls = (*first.calls[: retry.index], repaired, *first.calls[retry.index + 1 :])
        reason = again.finish_reason
        whole = replace(
            first,
            tokens=(*first.tokens, *again.tokens),
            statistics=(*first.statistics, *again.statistics),
            seconds=first.seconds + again.latency,
            latency=first.latency + again.latency,
            calls=calls,
            finish_reason="length" if reason == "stop" and not all(each.complete for each in calls) else reason,
        )
        note = f"the arguments of the call of {quoted_name(call.name)} were no JSON: dsr drew their rest once more"
        return [Notice(note), *self._end(whole)]

    def give_up(self) -> list[Event]:
        """End the sample without a second try."""
        assert self.broken is not None
        return self._end(replace(self.broken, finish_reason="length"))


def _first_usable(schemas: Sequence[Mapping[str, Any]], retry: Retry, backend: Backend) -> Grammar | None:
    """The grammar of a schema, or that of the retry if the valid beginning does not fit the schema; None without one.

    It is compiled here, so that the thread of the engine need not do that.
    """
    for schema in (*schemas, None):
        try:
            grammar = (
                retry.grammar if schema is None else Grammar("json_schema", json.dumps({"type": "object", **schema}))
            )
            backend.constraint(grammar, retry.arguments)
        except DsrError:
            continue
        return grammar
    return None


def drawn_with_repair(
    request: Request, draw: Callable[[Sequence[Request]], Iterator[Event]], backend: Backend
) -> Iterator[Event]:
    """The events of one sample, as `draw` gives them, with a second try for a broken call."""
    repair = CallRepair(request)
    for event in draw([request]):
        yield from repair.feed(event)
    if repair.broken is None:
        return
    again = repair.request(backend)
    if again is None:
        yield from repair.give_up()
        return
    try:
        for event in draw([again]):
            yield from repair.feed_again(event)
    except DsrError:
        if repair.broken is not None:
            yield from repair.give_up()
