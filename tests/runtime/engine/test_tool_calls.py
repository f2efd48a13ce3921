from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.base.types import Message, Tool, ToolCall
from runtime.engine.tool_calls import Calling, CallReader, Grown, call_reader, ids_of
from runtime.engine.tool_form import tool_form, tool_variables
from tests.runtime.engine.calling_templates import PLAIN, TEMPLATES, template

WEATHER = Tool(
    "get_weather",
    "The weather.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "hours": {"type": "array"},
            "deep": {"type": "object"},
            "now": {"type": "boolean"},
        },
    },
)
RUN = Tool("run", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}})
TIME = Tool("time", "The time.")
TOOLS = (WEATHER, RUN, TIME)
VALUES = {"city": 'Zürich "x" <b>', "days": 3, "hours": [1, "two"], "deep": {"a": [{}]}, "now": True}
CODE = {"code": "def f(x):\n    return f'{x}' if x < 2 else \"</p>\"\n"}


def calling(name: str) -> Calling:
    source = PLAIN if name == "plain" else TEMPLATES[name]
    return Calling(tool_form(template(source), None), TOOLS)


def written(name: str, *calls: tuple[str, dict[str, object]]) -> str:
    """The calls as the template writes them."""
    form = calling(name).form
    said = tuple(
        ToolCall(f"functions.{tool}:{n}" if form.ids != "nine" else f"abcdefgh{n}", tool, json.dumps(arguments))
        for n, (tool, arguments) in enumerate(calls)
    )
    if form.writes is None:
        return form.syntax.written(said)
    talk = (Message("user", "Q"), Message("assistant", "", calls=said))
    variables = tool_variables(form.lists, TOOLS)
    whole = template(TEMPLATES[name]).render(talk, variables=variables, add_generation_prompt=False, calls=form.writes)
    return whole.rpartition("<|assistant|>")[2].removesuffix("<|end|>\n")


def read(name: str, text: str, sizes: Sequence[int] = ()) -> tuple[CallReader, str]:
    """The reader after the text in pieces of these sizes, the last one the rest; and the text for the user."""
    reader = call_reader(calling(name), ids_of("any", ("seed",)))
    out: list[str | Grown] = []
    for size in sizes:
        out += reader.feed(text[:size])
        text = text[size:]
    out += reader.feed(text)
    out += reader.finish()
    grown: dict[int, str] = {}
    for each in out:
        if isinstance(each, Grown):
            grown[each.index] = grown.get(each.index, "") + each.arguments
    assert [*grown.values()] == [call.arguments for call in reader.calls], "what grew is what is there at the end"
    return reader, "".join(each for each in out if isinstance(each, str))


def called(reader: CallReader) -> list[tuple[str, object]]:
    return [(call.name, json.loads(call.arguments)) for call in reader.calls]


MANY: tuple[tuple[str, dict[str, object]], ...] = (("get_weather", VALUES), ("run", {**CODE}), ("time", {}))
# Python's marks of a text stand in the code, and the template does not escape them.
SIMPLE: tuple[tuple[str, dict[str, object]], ...] = (("get_weather", VALUES), ("run", {"code": "a\nb"}), ("time", {}))


def calls_for(name: str) -> tuple[tuple[str, dict[str, object]], ...]:
    return SIMPLE if name in ("python", "gemma") else MANY[:1] if name == "bare" else MANY


@pytest.mark.parametrize("name", [*TEMPLATES, "plain"])
def test_what_a_template_writes_is_read(name: str) -> None:
    wanted = calls_for(name)
    reader, said = read(name, written(name, *wanted))
    assert called(reader) == [*wanted]
    assert said.strip() == ""
    assert all(call.state == "complete" for call in reader.calls)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([*TEMPLATES, "plain"]), sizes=st.lists(st.integers(1, 9), max_size=60), noise=st.integers(0, 3)
)
def test_the_pieces_of_a_text_change_nothing(name: str, sizes: list[int], noise: int) -> None:
    text = written(name, *calls_for(name))
    text = (text, text[: len(text) * 2 // 3], text.replace('"', "'", 5), text + "\n\nThat is <all>.")[noise]
    whole, said = read(name, text)
    parts, again = read(name, text, sizes)
    assert ([*map(str, parts.calls)], again) == ([*map(str, whole.calls)], said)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from([*TEMPLATES, "plain"]),
    text=st.lists(
        st.sampled_from(
            [
                *"{}[]()\"'<>|:,\\\n =",
                *("<tool_call>", "</tool_call>", "<|call|>", "<|calls|>", "[CALL]", "[ARGS]", "time", "ä", "😀"),
                *('{"name": "time", "arguments": {', "<function=", "<parameter=code>", "<key>", "<calls>"),
            ]
        ),
        max_size=40,
    ),
    sizes=st.lists(st.integers(1, 9), max_size=30),
)
def test_any_text_is_read_to_its_end(name: str, text: list[str], sizes: list[int]) -> None:
    whole, said = read(name, "".join(text))
    parts, again = read(name, "".join(text), sizes)
    assert ([*map(str, parts.calls)], again) == ([*map(str, whole.calls)], said)
    for call in whole.calls:
        assert call.state != "complete" or isinstance(json.loads(call.arguments), dict)


@pytest.mark.parametrize("text", ["{" * 100_000, "[" * 100_000, '"' * 100_000, "<tool_call>" * 10_000], ids=len)
@pytest.mark.parametrize("name", [*TEMPLATES, "plain"])
def test_a_hostile_text_is_read_in_time(name: str, text: str) -> None:
    begins = written(name, ("time", {})).partition("{}")[0]
    read(name, begins + text)
    reader, _ = read(name, text)
    assert not [call for call in reader.calls if call.state == "complete"]


def test_text_that_only_begins_like_a_call_is_text() -> None:
    for text in ("<tool_call>", "<tool_call>\nno call", "a <tool_call> b", "<tool_call>{'name': 1}</tool_call>"):
        reader, said = read("objects", text)
        assert (reader.calls, said) == ([], text)


def test_a_call_without_marks_must_be_one_of_a_known_tool() -> None:
    reader, said = read("bare", '{"name": "time", "parameters": {}}')
    assert (called(reader), said) == ([("time", {})], "")
    for text in ('{"name": "Ada", "parameters": {}}', '{"answer": 4}', "{", '{"name": 4}', "{time}", '{"name"'):
        reader, said = read("bare", text)
        assert (reader.calls, said) == ([], text)


def test_the_name_may_come_behind_the_arguments() -> None:
    reader, _ = read("objects", '<tool_call>{"arguments": {"code": "x"}, "name": "run"}</tool_call>')
    assert called(reader) == [("run", {"code": "x"})]


def test_arguments_in_quotation_marks_are_unwrapped() -> None:
    reader, _ = read("objects", '<tool_call>{"name": "run", "arguments": "{\\"code\\": \\"x\\"}"}</tool_call>')
    assert called(reader) == [("run", {"code": "x"})]


def test_arguments_stream_as_they_come() -> None:
    reader = call_reader(calling("objects"), ids_of("any", ()))
    pieces = ['<tool_call>\n{"name": "run", "argu', 'ments": {"co', 'de": "a', 'b\n"', "}}\n</tool", "_call>"]
    grown = [[each.arguments for each in reader.feed(piece) if isinstance(each, Grown)] for piece in pieces]
    assert grown == [[""], ['{"co'], ['de": "a'], ['b\\n"'], ["}"], []]


def test_a_text_of_parameters_streams_without_the_mark_behind_it() -> None:
    reader = call_reader(calling("parameters"), ids_of("any", ()))
    pieces = [
        "<tool_call>\n<function=run>\n<parameter=code>\nab",
        "c\n",
        "d\n</para",
        "meter>\n</function>\n</tool_call>",
    ]
    grown = ["".join(each.arguments for each in reader.feed(piece) if isinstance(each, Grown)) for piece in pieces]
    assert grown == ['{"code": "a', "bc", "\\nd", '"}']


def test_a_mark_inside_of_a_value_is_a_part_of_it() -> None:
    code = "print('</parameter>')\n<function=time>"
    reader, _ = read("parameters", written("parameters", ("run", {"code": code})))
    assert called(reader) == [("run", {"code": code})]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("days", "3", 3),
        ("days", "three", "three"),
        ("city", "3", "3"),
        ("city", "null", "null"),
        ("hours", "[1, 2]", [1, 2]),
        ("hours", "['a', None]", ["a", None]),
        ("now", "True", True),
        ("now", "false", False),
        ("other", "3", 3),
        ("other", "three", "three"),
    ],
)
def test_arguments_without_quotation_marks_have_the_type_of_the_schema(key: str, text: str, value: object) -> None:
    call = f"<tool_call>get_weather<key>{key}</key><value>{text}</value></tool_call>"
    reader, _ = read("keys and values", call)
    assert called(reader) == [("get_weather", {key: value})]


def test_a_mark_before_the_name_may_be_missing() -> None:
    reader, said = read("parameters", "Let me see.\n<function=time>\n</function>\n</tool_call>\nSo.")
    assert (called(reader), said) == ([("time", {})], "Let me see.\nSo.")


def test_a_call_that_is_cut_stays_open() -> None:
    reader, _ = read("objects", '<tool_call>\n{"name": "run", "arguments": {"code": "a')
    assert [(call.state, call.arguments) for call in reader.calls] == [("open", '{"code": "a')]


def test_a_mark_that_is_cut_is_no_text() -> None:
    for name in ("objects", "parameters", "gemma"):
        reader, said = read(name, written(name, ("time", {})).rstrip()[:-3])
        assert (called(reader), said.strip()) == ([("time", {})], "")


def test_arguments_that_are_no_json_break_their_call_alone() -> None:
    broken = '<tool_call>\n{"name": "run", "arguments": {"code": a}}\n</tool_call>\n'
    reader, said = read("objects", broken + written("objects", ("time", {})))
    assert [(call.name, call.state, call.arguments) for call in reader.calls] == [
        ("run", "broken", '{"code": '),
        ("time", "complete", "{}"),
    ]
    assert said.strip() == ""


def test_ids_of_the_model_are_kept_if_they_say_something() -> None:
    ids = [call.id for call in read("marks with ids", written("marks with ids", ("time", {})))[0].calls]
    assert ids == ["functions.time:0"]
    short = '<tool_call>{"id": "0", "name": "time", "arguments": {}}</tool_call>'
    assert read("objects", short)[0].calls[0].id.startswith("call_")


def test_made_up_ids_depend_on_the_seed_and_the_index_alone() -> None:
    made = ids_of("any", (1, 0))
    assert made(0, "a") == ids_of("any", (1, 0))(0, "b")
    assert len({made(0, ""), made(1, ""), ids_of("any", (2, 0))(0, "")}) == 3
    assert len(ids_of("nine", (1,))(0, "")) == 9
    assert ids_of("numbered", ())(2, "run") == "functions.run:2"
