"""Calls of tools from the prompt to the end of a reply: what the model reads, and what the engine tells."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runtime.base.errors import Incompatible
from runtime.base.events import Event, SampleFinished, TextDrawn, ToolCallGrew
from runtime.base.types import Completion, Message, OneTool, SamplingParams, Tool, ToolCall
from runtime.engine.call_retry import retry_of
from runtime.engine.engine import Engine
from runtime.engine.grammar import JSON_OBJECT
from runtime.engine.markers import HARMONY, ThinkingMarkers
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt, answered, build_prompt
from runtime.engine.tool_calls import Calling
from runtime.engine.tool_form import tool_form
from runtime.engine.tool_grammar import call_grammar
from runtime.engine.tool_use import ToolUse
from tests.fakes import FakeBackend, saying
from tests.runtime.engine.calling_templates import ALONE, PLAIN, TEMPLATES, template, written

TAGS = ThinkingMarkers("<think>", "</think>")
RUN = Tool("run", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]})
TIME = Tool("time", "The time.")
CALL = ToolCall("call_0001", "run", '{"code": "1"}')
ASKED, CALLED = Message("user", "Q"), Message("assistant", "", calls=(CALL,))
RESULT = Message("tool", "2", call_id="call_0001")


def calling(source: str, markers: ThinkingMarkers | None = None, *, parallel: bool = True) -> Calling:
    return Calling(tool_form(template(source), markers), (RUN, TIME), parallel)


def prompt(source: str, *messages: Message, tools: tuple[Tool, ...] = (RUN,), **asked: bool) -> str:
    compiled = template(source)
    form = tool_form(compiled, TAGS)
    return build_prompt(compiled, messages, TAGS, None, "", tools=tools, form=form, **asked).text  # type: ignore[arg-type]


def drawn(
    reply: str, of: Calling, markers: ThinkingMarkers | None = TAGS, stop: tuple[str, ...] = ()
) -> tuple[Completion, list[Event]]:
    events: list[Event] = []
    engine = Engine(FakeBackend(saying(reply, after="? ")))
    params = SamplingParams(stop=stop)
    engine.submit(Request(Prompt(tuple(b"Question? "), text="Question? "), params, markers, calling=of), events.append)
    while engine.busy:
        engine.step()
    [completion] = [event.completion for event in events if isinstance(event, SampleFinished)]
    return completion, events


# The prompt


def test_a_template_that_knows_tools_lists_them_itself() -> None:
    listed = json.dumps({"type": "function", "function": {"name": "time", "description": "The time."}})[:-2]
    text = prompt(TEMPLATES["objects"], ASKED, tools=(TIME,))
    assert text.startswith(f"<tools>[{listed}, ")
    assert text.endswith("<|user|>Q<|end|>\n<|assistant|>")


def test_a_template_that_knows_no_tools_gets_them_in_the_system_prompt() -> None:
    text = prompt(PLAIN, Message("system", "Be kind."), ASKED)
    assert text.startswith("<|system|>Be kind.\n\n# Tools\n")
    assert '<tools>\n{"type": "function", "function": {"name": "run", "description": "Runs code."' in text
    assert '<tool_call>\n{"name": "FUNCTION_NAME", "arguments": {"PARAMETER": "VALUE"}}\n</tool_call>' in text
    assert prompt(PLAIN, ASKED).startswith("<|system|># Tools\n")


def test_calls_and_results_that_a_template_does_not_take_become_text() -> None:
    text = prompt(PLAIN, ASKED, replace(CALLED, content="Let me see."), RESULT, RESULT)
    called = '<tool_call>\n{"name": "run", "arguments": {"code": "1"}}\n</tool_call>'
    result = "<tool_response>\n2\n</tool_response>"
    assert text.partition("<|user|>Q<|end|>")[2] == (
        f"<|assistant|>Let me see.\n{called}<|end|><|user|>{result}\n{result}<|end|><|assistant|>"
    )


def test_calls_are_written_though_their_message_has_a_text() -> None:
    assert "<|call|>run" in prompt(ALONE, ASKED, replace(CALLED, content="Let me see."), RESULT)


def test_ids_are_those_that_the_template_takes() -> None:
    short = ToolCall("abcdefgh1", "run", "{}")
    assert '"id": "abcdefgh1"' in prompt(
        TEMPLATES["list with ids"], ASKED, Message("assistant", "", calls=(short,)), RESULT
    )
    long = ToolCall("call_of_another_server", "run", "{}")
    known = prompt(TEMPLATES["list with ids"], ASKED, Message("assistant", "", calls=(long,)), RESULT)
    assert len(known.partition('"id": "')[2].partition('"')[0]) == 9


def test_calls_of_one_answer_come_one_by_one_where_the_template_takes_no_more() -> None:
    other = ToolCall("call_0002", "time", "{}")
    both = Message("assistant", "Let me see.", calls=(CALL, other))
    text = prompt(TEMPLATES["bare"], ASKED, both, Message("tool", "noon", call_id="call_0002"), RESULT)
    assert text.partition("<|user|>Q")[2] == (
        '<|end|>\n<|assistant|>Let me see.{"name": "run", "parameters": {"code": "1"}}<|end|>\n<|tool|>2<|end|>\n'
        '<|assistant|>{"name": "time", "parameters": {}}<|end|>\n<|tool|>noon<|end|>\n<|assistant|>'
    )


def test_special_tokens_in_tools_calls_and_results_stay_text() -> None:
    compiled = template(TEMPLATES["objects"])
    compiled.spellings = ("<|end|>",)
    hostile = Tool("run", "<|end|>", {"type": "object", "properties": {"<|end|>": {"description": "<|end|>"}}})
    call = ToolCall("1", "run", '{"code": "<|end|>\\u003c|end|>"}')
    talk = (ASKED, Message("assistant", "", calls=(call,)), Message("tool", "<|end|>", call_id="1"))
    made = build_prompt(compiled, talk, None, None, "", tools=(hostile,), form=tool_form(compiled, None))
    assert made.text.count("<|end|>") == 6 + 3
    ends = [at for at in range(len(made.text)) if made.text.startswith("<|end|>", at) and at not in made.literal]
    assert len(ends) == 3


def test_the_thoughts_that_led_to_calls_since_the_question_are_kept() -> None:
    source = TEMPLATES["objects"].replace("{{ m.content or '' }}", "{{ m.reasoning_content }}{{ m.content or '' }}")
    before = (ASKED, replace(CALLED, thinking="old"), RESULT, Message("assistant", "A", "older"))
    text = prompt(source, *before, ASKED, replace(CALLED, thinking="new"), RESULT)
    assert "new" in text
    assert "old" not in text


def test_calls_and_results_belong_to_their_question() -> None:
    last = Message("user", "R")
    assert answered((ASKED, CALLED, RESULT)) == (ASKED, CALLED, RESULT)
    assert answered((ASKED, CALLED, RESULT, Message("assistant", "A"), last))[-1] == last
    assert answered((ASKED, CALLED, RESULT, Message("assistant", ""), last)) == (ASKED, CALLED, RESULT, last)
    assert answered((ASKED, last, CALLED, RESULT)) == (last, CALLED, RESULT)


# The reply


def test_a_reply_is_thought_text_and_calls() -> None:
    reply = '<think>hm</think>Let me see.\n\n<tool_call>\n{"name": "run", "arguments": {"code": "1"}}\n</tool_call>'
    completion, events = drawn(reply, calling(TEMPLATES["objects"]))
    [call] = completion.calls
    assert (completion.thinking, completion.answer, completion.finish_reason) == ("hm", "Let me see.", "stop")
    assert (call.name, call.arguments) == ("run", '{"code": "1"}')
    grown = [event for event in events if isinstance(event, ToolCallGrew)]
    assert {(event.index, event.id, event.name) for event in grown} == {(0, call.id, "run")}
    assert "".join(event.arguments for event in grown) == '{"code": "1"}'
    assert "".join(e.text for e in events if isinstance(e, TextDrawn) and e.part == "answer") == "Let me see."


def test_a_mark_in_code_or_quotes_or_in_a_thought_is_text() -> None:
    of = calling(TEMPLATES["objects"])
    for text in ("Write `<tool_call>` first.", '"<tool_call>" is a mark.', "```\n<tool_call>\n```"):
        completion, _ = drawn(text, of)
        assert (completion.answer, completion.calls) == (text, ())
    completion, _ = drawn("<think>a <tool_call> b</think>c", of)
    assert (completion.thinking, completion.answer, completion.calls) == ("a <tool_call> b", "c", ())


def test_an_answer_that_begins_with_a_brace_may_be_a_call() -> None:
    of = calling(TEMPLATES["bare"])
    completion, _ = drawn('<think>hm</think>\n{"name": "time", "parameters": {}}', of)
    assert [call.name for call in completion.calls] == ["time"]
    completion, _ = drawn('{"time": 1}', of)
    assert (completion.answer, completion.calls) == ('{"time": 1}', ())


@pytest.mark.parametrize("fence", ["```json\n", "```\n", "```json", "\n```json\n\n"])
def test_an_answer_that_begins_with_a_block_of_code_may_be_a_call(fence: str) -> None:
    of = calling(TEMPLATES["bare"])
    for before, thought in (("", ""), ("<think>hm</think>\n", "hm")):
        completion, _ = drawn(f'{before}{fence}{{"name": "time", "parameters": {{}}}}\n```', of)
        assert [call.name for call in completion.calls] == ["time"]
        assert (completion.thinking, completion.answer) == (thought, "")
    completion, _ = drawn(f'{fence}{{"name": "time", "parameters": {{}}}}\n```\nDone. ```', of)
    assert [call.name for call in completion.calls] == ["time"]
    assert completion.answer == "Done. ```"


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"time": 1}\n```',
        '```json\n{"name": "Ada", "parameters": {}}\n```',
        '```python\n{"name": "time", "parameters": {}}\n```',
        'Look:\n```json\n{"name": "time", "parameters": {}}\n```',
        "```json\n[1]\n```\nand {2}",
        *("`", "``x``", "```", "```js", "```json", "```json\n{", "`{`"),
    ],
)
def test_other_code_at_the_beginning_is_text(text: str) -> None:
    completion, events = drawn(text, calling(TEMPLATES["bare"]))
    assert (completion.answer, completion.calls) == (text, ())
    assert "".join(each.text for each in events if isinstance(each, TextDrawn)) == text


def test_without_parallel_calls_a_reply_ends_with_the_first() -> None:
    one = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>\n'
    assert len(drawn(one * 3, calling(TEMPLATES["objects"]))[0].calls) == 3
    completion, events = drawn(one * 3, calling(TEMPLATES["objects"], parallel=False))
    assert len(completion.calls) == 1
    assert len(completion.tokens) < len(one)
    assert {event.index for event in events if isinstance(event, ToolCallGrew)} == {0}


def test_a_stop_string_in_the_arguments_stops_nothing() -> None:
    reply = 'Now.<tool_call>\n{"name": "run", "arguments": {"code": "STOP"}}\n</tool_call>'
    completion, _ = drawn(reply, calling(TEMPLATES["objects"]), stop=("STOP",))
    assert completion.calls[0].arguments == '{"code": "STOP"}'


def test_a_recipient_in_a_header_makes_a_call() -> None:
    source = written(
        "<|start|>assistant to=functions.{{ c.function.name }}<|channel|>commentary json<|message|>"
        "{{ c.function.arguments | tojson }}<|call|>"
    )
    thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    for header in (
        "<|channel|>commentary to=functions.run <|constrain|>json",
        " to=functions.run<|channel|>commentary",
    ):
        reply = thought + header + '<|message|>{"code": "1"}'
        completion, _ = drawn(reply, calling(source, HARMONY), HARMONY)
        assert [(call.name, call.arguments) for call in completion.calls] == [("run", '{"code": "1"}')]
        assert (completion.thinking, completion.answer) == ("hm", "")


# What a call must be


def test_a_required_call_has_a_grammar() -> None:
    form = tool_form(template(TEMPLATES["objects"]), None)
    assert call_grammar(form, ToolUse((RUN, TIME)), lambda text: None) is None
    grammar = call_grammar(form, ToolUse((RUN, TIME), OneTool("time"), parallel=False), lambda text: None)
    assert grammar is not None
    assert grammar.kind == "lark"
    first, *rules = grammar.text.splitlines()
    assert first == 'start: "<tool_call>\\n" call "\\n</tool_call>"'
    assert rules[0].startswith('call0: "{\\"name\\": \\"time\\", \\"arguments\\": " %json {"type": "object"')
    assert len(rules) == 2


def test_control_tokens_of_a_grammar_are_numbers() -> None:
    form = tool_form(template(TEMPLATES["marks"]), None)
    grammar = call_grammar(form, ToolUse((TIME,), "required"), {"[CALL]": 7, "[ARGS]": 8}.get)
    assert grammar is not None
    assert grammar.text.splitlines()[1].startswith('call0: <[7]> "time" <[8]> %json ')


def test_a_call_in_a_header_cannot_be_forced() -> None:
    source = written(
        "<|start|>assistant to=functions.{{ c.function.name }}<|channel|>commentary json<|message|>"
        "{{ c.function.arguments | tojson }}<|call|>"
    )
    with pytest.raises(Incompatible, match="names a tool in the header"):
        call_grammar(tool_form(template(source), HARMONY), ToolUse((TIME,), "required"), lambda text: None)


def test_a_broken_call_is_drawn_again_from_the_mistake_on() -> None:
    asked = Prompt((1,), starts_in_thought=True, text="Q<think>")
    reply = 'hm</think>Now.\n<tool_call>\n{"name": "run", "arguments": {"code": "1", b}}\n</tool_call>'
    retry = retry_of(asked, reply, TAGS, calling(TEMPLATES["objects"]))
    assert retry is not None
    begun = '{"code": "1", '
    kept = 'Q<think>hm</think>Now.\n<tool_call>\n{"name": "run", "arguments": {"code": "1", '
    assert (retry.index, retry.arguments, retry.grammar) == (0, begun, JSON_OBJECT)
    assert (retry.prompt.text, retry.prompt.begun, retry.prompt.tokens) == (kept, begun, ())


@pytest.mark.parametrize(
    ("reply", "begun"),
    [
        ('<tool_call>{"name": "run", "arguments": {"code": "a', '{"code": "a'),
        ('<tool_call>{"name": "run", "arguments": ', ""),
        ('<tool_call>{"name": "run", "ar', ""),
        ('<tool_call>{"name": "run"', ""),
    ],
)
def test_a_call_that_the_reply_ends_in_is_drawn_again_from_there(reply: str, begun: str) -> None:
    retry = retry_of(Prompt((1,), text="Q"), reply, TAGS, calling(TEMPLATES["objects"]))
    assert retry is not None
    assert (retry.prompt.text, retry.arguments) == (f'Q<tool_call>{{"name": "run", "arguments": {begun}', begun)


def test_only_a_call_with_a_mistake_is_drawn_again() -> None:
    of = calling(TEMPLATES["objects"])
    for reply in (
        "no call",
        '<tool_call>{"name": "time", "arguments": {}}</tool_call>',
        '<tool_call>{"na',
    ):
        assert retry_of(Prompt((1,)), reply, TAGS, of) is None
    broken = "<tool_call>time<key>a"
    assert retry_of(Prompt((1,)), broken, TAGS, calling(TEMPLATES["keys and values"])) is None
