from __future__ import annotations

import pytest

from runtime.engine.call_syntax import CallSyntax, JsonCalls, TagArguments, TaggedCalls
from runtime.engine.call_table import GENERIC
from runtime.engine.chat_template import CallsAs
from runtime.engine.markers import HARMONY
from runtime.engine.tool_form import ToolForm, tool_form
from tests.runtime.engine.calling_templates import ALONE, PLAIN, TEMPLATES, template, written


def form(name: str) -> ToolForm:
    return tool_form(template(TEMPLATES[name]), None)


FORMS: dict[str, CallSyntax] = {
    "objects": JsonCalls("<tool_call>\n", "\n</tool_call>", separator="", optional=True),
    "list": JsonCalls("[TOOLS]", listed=True),
    "list with ids": JsonCalls("[TOOL_CALLS]", id_key="id", listed=True),
    "lines": JsonCalls("<calls>\n", "</calls>", each=False, separator="", optional=True),
    "names as keys": JsonCalls("<|calls|>", "<|/calls|>", name_key="", arguments_key="", listed=True),
    "bare": JsonCalls(arguments_key="parameters", optional=True),
    "marks": TaggedCalls("[CALL]", "[ARGS]"),
    "marks with ids": TaggedCalls(
        "<|call|>", "<|args|>", "<|/call|>", open="<|calls:begin|>", close="<|calls:end|>", id_close="<|name|>"
    ),
    "numbered": TaggedCalls(
        "<|call|>functions.", "<|args|>", "<|/call|>", open="<|calls|>", close="<|/calls|>", id_open=":", numbered=True
    ),
    "parameters": TaggedCalls(
        "<tool_call>\n<function=",
        ">",
        "\n</function>\n</tool_call>",
        TagArguments("<parameter=", ">\n", "\n</parameter>", "\n"),
    ),
    "keys and values": TaggedCalls(
        "<tool_call>", call_close="</tool_call>", arguments=TagArguments("<key>", "</key><value>", "</value>")
    ),
    "typed": TaggedCalls(
        '<invoke name="',
        '">',
        "</invoke>",
        TagArguments('<p name="', '" text="', "</p>", text_word="true", other_word="false", value_open='">'),
        open="<calls>",
        close="</calls>",
    ),
    "keys as tags": TaggedCalls('<call name="', '">', "</call>", TagArguments("<#", ">", "</#{key}>")),
    "python": TaggedCalls("", open="<|calls|>", close="<|/calls|>", arguments="python"),
    "gemma": TaggedCalls("<|call>call:", call_close="<call|>", arguments="gemma"),
    "texts": TaggedCalls("<|call|>", "\n```json\n", "\n```<|/call|>", open="<|calls|>", close="<|/calls|>"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_syntax_is_read_off_a_rendered_turn(name: str) -> None:
    assert form(name).syntax == FORMS[name]
    assert form(name).known
    assert form(name).lists == ("tools",)


def test_a_template_gets_arguments_and_ids_as_it_takes_them() -> None:
    assert form("objects").writes == CallsAs()
    assert form("texts").writes == CallsAs(texts=True)
    assert tool_form(template(ALONE), None).writes == CallsAs(texts=True, alone=True)
    assert (form("objects").ids, form("list with ids").ids, form("numbered").ids) == ("any", "nine", "numbered")
    assert (form("objects").parallel, form("bare").parallel) == (True, False)


def test_a_template_that_knows_no_tools_gets_the_common_form() -> None:
    found = tool_form(template(PLAIN), None)
    assert (found.syntax, found.lists, found.writes, found.returns, found.known) == (GENERIC, (), None, False, False)


def test_a_template_that_writes_calls_and_lists_no_tools_keeps_its_form() -> None:
    found = tool_form(
        template(written("[CALL]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}", lists=False)), None
    )
    assert (found.syntax, found.lists) == (FORMS["marks"], ())


def test_a_dictionary_as_python_writes_it_is_no_form() -> None:
    found = tool_form(template(written("<call>{{ c.function.name }} {{ c.function.arguments }}</call>")), None)
    assert found.writes == CallsAs(texts=True)


def test_a_header_with_the_recipient_makes_a_call() -> None:
    source = written(
        "<|start|>assistant to=functions.{{ c.function.name }}<|channel|>commentary json<|message|>"
        "{{ c.function.arguments | tojson }}<|call|>"
    )
    found = tool_form(template(source), HARMONY)
    assert found.header == "to=functions."
    assert found.call_marks.begins == ()


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("objects", ("<tool_call>",)),
        ("parameters", ("<tool_call>", "<function=")),
        ("marks with ids", ("<|calls:begin|>", "<|call|>")),
        ("numbered", ("<|calls|>",)),
        ("bare", ()),
    ],
)
def test_calls_begin_at_the_first_mark_that_is_enough(name: str, marks: tuple[str, ...]) -> None:
    assert form(name).begins == marks


def test_marks_are_tokens_where_the_vocabulary_has_them() -> None:
    known = form("marks with ids").with_tokens(lambda text: text == "<|call|>")
    assert known.call_marks.tokens == {"<|call|>"}
