from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.engine.grammar import Grammar


def refusal(kind: str, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        Grammar(kind, text)  # type: ignore[arg-type]
    return caught.value.message


def _json(**schema: object) -> str:
    return json.dumps(schema)


def nested(levels: int) -> str:
    return '{"items": ' * levels + "{}" + "}" * levels


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("yaml", "a", "there is no grammar of the kind 'yaml'"),
        ("regex", "", "the regex grammar is empty"),
        ("lark", " \n", "the lark grammar is empty"),
        ("gbnf", "x" * 100_001, "the gbnf grammar has 100,001 characters, and 100,000 are possible"),
        ("regex", "x" * 10_001, "the regex grammar has 10,001 characters, and 10,000 are possible"),
        ("json", "{}", "the json grammar has 2 characters, and 0 are possible"),
        ("json_schema", "[1 2]", "the schema is no JSON: Expecting ',' delimiter (line 1, column 4)"),
        ("json_schema", '{"minimum": NaN}', "the schema is no JSON: it has NaN, which JSON does not know"),
        ("json_schema", '{"minimum": ' + "1" * 301 + "}", "the schema has a number of 301 digits"),
        ("json_schema", "[1, 2]", "a JSON Schema is an object, not [1, 2]"),
        ("json_schema", "false", "a JSON Schema is an object, not False"),
        ("json_schema", "[" + "1," * 20_000 + "1]", "the schema has more than 20,000 values"),
        ("json_schema", _json(a={"required": ["x"] * 1001}), "/a/required has 1,001 names, and 1,000 are possible"),
        ("json_schema", _json(pattern="x" * 10_001), "the patterns of the schema have more than 10,000 characters"),
        (
            "json_schema",
            _json(patternProperties={f"{n:05}": {} for n in range(900)}, anyOf=[{"pattern": "x" * 5501}]),
            "the patterns of the schema have more than 10,000 characters",
        ),
        ("json_schema", "[" * 100_000, "the schema is nested more than 100 levels deep"),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_a_grammar_is_refused(kind: str, text: str, message: str) -> None:
    assert refusal(kind, text) == message


def test_a_schema_that_is_too_deep_is_refused_with_the_place() -> None:
    assert Grammar("json_schema", nested(99)).schema()["items"] is not None
    place = "/items" * 100
    assert refusal("json_schema", nested(100)) == (f"the schema is nested more than 100 levels deep, at {place[:79]}…")


def test_a_schema_that_allows_everything_may_be_true() -> None:
    assert Grammar("json_schema", "true").schema() == {}
    assert Grammar("json").schema() == {}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    )
)
def test_any_json_is_a_schema_or_refused_by_name(value: object) -> None:
    text = json.dumps(value)
    if isinstance(value, dict) or value is True:
        assert Grammar("json_schema", text).schema() == (value if isinstance(value, dict) else {})
    else:
        refusal("json_schema", text)
