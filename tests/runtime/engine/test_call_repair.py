"""What is told of a sample with a broken call, and what is drawn for it."""

from __future__ import annotations

import pytest

from runtime.base.events import Event, Interrupted, SampleFinished, TextDrawn, ToolCallGrew
from runtime.base.types import Completion, SamplingParams, Tool
from runtime.engine.call_repair import CallRepair, drawn_with_repair
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.engine.tool_calls import Calling
from runtime.engine.tool_form import tool_form
from tests.fakes import FakeBackend, saying
from tests.runtime.engine.calling_templates import TEMPLATES, template

TOOLS = (
    Tool("run"),
    Tool("time"),
    Tool("strict", parameters={"type": "object", "maxProperties": 1}),
    Tool("odd", parameters={"type": "object", "pattern": "("}),
)
# The fake's grammar of a schema takes one text, the schema: of any object {"type": "object"}.
BROKEN = '<tool_call>{"name": "run", "arguments": {"type": b}}</tool_call>'
WHOLE = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'


def request(source: str = "objects", max_tokens: int | None = None, *, parallel: bool = True) -> Request:
    calling = Calling(tool_form(template(TEMPLATES[source]), None), TOOLS, parallel)
    params = SamplingParams(max_tokens=max_tokens, stop=("obj",))
    return Request(Prompt(tuple(b"Question? "), text="Question? "), params, calling=calling)


def drawn(reply: str, of: Request, *, context: int = 1000) -> tuple[Completion, list[Event]]:
    backend = FakeBackend(saying(reply, after="? "), context=context)
    events = [*drawn_with_repair(of, Engine(backend).stream, backend)]
    [completion] = [event.completion for event in events if isinstance(event, SampleFinished)]
    return completion, events


def told(events: list[Event]) -> list[tuple[int | None, str]]:
    """Text and calls in their order; the text of one after the other is joined."""
    joined: list[tuple[int | None, str]] = []
    for event in events:
        if not isinstance(event, (TextDrawn, ToolCallGrew)):
            continue
        index, text = (None, event.text) if isinstance(event, TextDrawn) else (event.index, event.arguments)
        if joined and joined[-1][0] == index:
            text = joined.pop()[1] + text
        joined.append((index, text))
    return joined


def arguments(completion: Completion) -> list[str]:
    return [call.arguments for call in completion.calls]


def test_a_broken_call_goes_on_in_the_same_call_and_the_sample_ends_once_with_all_tokens() -> None:
    completion, events = drawn(f"Now. {BROKEN}", request())
    assert told(events) == [(None, "Now."), (0, '{"type": "object"}')]
    assert {(each.id, each.name) for each in events if isinstance(each, ToolCallGrew)} == {
        (completion.calls[0].id, "run")
    }
    assert (completion.finish_reason, arguments(completion)) == ("stop", ['{"type": "object"}'])
    assert len(completion.tokens) == len(f"Now. {BROKEN}") + len('"object"}')
    assert (completion.answer, completion.stop_string) == ("Now.", "")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("strict", '{"type": "object", "maxProperties": 1}'),
        ("odd", '{"type": "object"}'),  # the fake cannot use its schema
        ("unknown", '{"type": "object"}'),
    ],
)
def test_the_second_try_follows_the_schema_of_the_tool_if_that_is_possible(name: str, expected: str) -> None:
    completion, _ = drawn(BROKEN.replace("run", name), request())
    assert (completion.finish_reason, arguments(completion)) == ("stop", [expected])


def test_a_reply_that_ends_within_the_arguments_goes_on() -> None:
    completion, events = drawn('<tool_call>{"name": "run", "arguments": {"ty', request())
    assert told(events) == [(0, '{"type": "object"}')]
    assert (completion.finish_reason, arguments(completion)) == ("stop", ['{"type": "object"}'])


def test_calls_and_text_behind_the_mistake_wait_for_the_call_to_be_whole() -> None:
    completion, events = drawn(f"{BROKEN}\n{WHOLE} Done.", request())
    assert told(events) == [(0, '{"type": "object"}'), (1, "{}"), (None, "Done.")]
    assert (completion.finish_reason, arguments(completion)) == ("stop", ['{"type": "object"}', "{}"])


def test_without_mistakes_nothing_waits() -> None:
    repair = CallRepair(request())
    for event in (
        TextDrawn(0, "thinking", "hm"),
        TextDrawn(0, "answer", "Now. "),
        ToolCallGrew(0, 0, "a", "run", '{"type": '),
        ToolCallGrew(0, 0, "a", "run", '"x"}'),
        ToolCallGrew(0, 1, "b", "time", "{}"),
        TextDrawn(0, "answer", "Done."),
    ):
        assert repair.feed(event) == [event]
    assert repair.broken is None


@pytest.mark.parametrize("most", [len(BROKEN) - 5, len(BROKEN)])
def test_a_reply_that_the_token_limit_cuts_has_no_second_try(most: int) -> None:
    completion, events = drawn(BROKEN, request(max_tokens=most))
    assert told(events) == [(0, '{"type": ')]
    assert (completion.finish_reason, len(completion.tokens)) == ("length", most)


def test_the_second_try_has_the_rest_of_the_tokens_and_ends_with_length() -> None:
    completion, events = drawn(BROKEN, request(max_tokens=len(BROKEN) + 4))
    assert told(events) == [(0, '{"type": "obj')]
    assert (completion.finish_reason, arguments(completion)) == ("length", ['{"type": "obj'])
    assert len(completion.tokens) == len(BROKEN) + 4


def test_one_call_of_a_sample_gets_a_second_try_and_another_one_ends_it_with_length() -> None:
    completion, events = drawn(BROKEN + BROKEN, request())
    assert told(events) == [(0, '{"type": "object"}'), (1, '{"type": ')]
    assert completion.finish_reason == "length"


def test_the_only_call_that_may_be_is_drawn_again() -> None:
    completion, events = drawn(BROKEN + WHOLE, request(parallel=False))
    assert told(events) == [(0, '{"type": "object"}')]
    assert (completion.finish_reason, arguments(completion)) == ("stop", ['{"type": "object"}'])


def test_a_mistake_in_another_notation_than_json_ends_the_sample_with_length() -> None:
    completion, events = drawn("<tool_call>run<key>type</key><value>a", request("keys and values"))
    assert told(events) == [(0, '{"type": ')]
    assert completion.finish_reason == "length"


def test_a_second_try_without_room_in_the_context_ends_the_sample_as_it_is() -> None:
    reply = '<tool_call>{"name": "run", "arguments": {"type": '
    completion, events = drawn(reply, request(), context=len("Question? ") + len(reply))
    assert told(events) == [(0, '{"type": ')]
    assert completion.finish_reason == "length"


def test_an_abort_of_the_second_try_is_told_after_the_end_of_the_sample() -> None:
    backend = FakeBackend(saying(BROKEN, after="? "))
    drawing = drawn_with_repair(request(), Engine(backend).stream, backend)
    while not any(isinstance(event, ToolCallGrew) and event.arguments == '"' for event in (next(drawing),)):
        pass
    backend.stop.set()
    ended, interrupted = [event for event in drawing if isinstance(event, (SampleFinished, Interrupted))]
    assert isinstance(ended, SampleFinished)
    assert ended.completion.finish_reason == "cancelled"
    assert isinstance(interrupted, Interrupted)
