from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.json_stream import JsonStream
from runtime.engine.other_arguments import GemmaStream, gemma_text, python_text, read_python_call

KEYS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=5)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


def read(stream: JsonStream, text: str, size: int) -> tuple[str, str]:
    """The value, and what follows it."""
    held = ""
    for begin in range(0, len(text), size):
        held += text[begin : begin + size]
        held = held[stream.feed(held) :]
    return stream.text, held


@given(value=st.dictionaries(KEYS, VALUES, max_size=4), size=st.integers(1, 20), indent=st.sampled_from([None, 2]))
def test_json_is_read_to_its_end(value: dict[str, object], size: int, indent: int | None) -> None:
    stream, text = JsonStream(), json.dumps(value, indent=indent)
    assert read(stream, text + "}rest", size) == (text, "}rest")
    assert stream.done


@given(value=st.dictionaries(KEYS, VALUES, max_size=4), size=st.integers(1, 20))
def test_gemmas_notation_becomes_json(value: dict[str, object], size: int) -> None:
    stream = GemmaStream()
    text, rest = read(stream, gemma_text(value) + "<call|>", size)
    assert (json.loads(text), rest) == (value, "<call|>")


@given(value=st.dictionaries(st.from_regex(r"[a-z]{1,5}_", fullmatch=True), VALUES, max_size=3))
def test_a_call_in_python_becomes_json(value: dict[str, object]) -> None:
    called = read_python_call(python_text("a.b", value))
    assert called is not None
    assert (called[0], json.loads(called[1])) == ("a.b", value)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"a": "x\ny"}', '{"a": "x\\ny"}'),
        ('{"a": "\\d \\\' \\u12"}', '{"a": "\\\\d \\\\\' \\\\u12"}'),
        ('{"a": True, "b": None}', '{"a": true, "b": null}'),
    ],
)
def test_common_mistakes_are_mended(text: str, valid: str) -> None:
    stream = JsonStream()
    stream.feed(text)
    assert (stream.text, stream.done) == (valid, True)
    json.loads(valid)


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ('{"a": 1,}', '{"a": 1,'),
        ("{'a': 1}", "{"),
        ('{"a": tru}', '{"a": '),
        ('{"a": 01}', '{"a": '),
        ('{"a" 1}', '{"a" '),
        ('{"a": 1]', '{"a": 1'),
        ('{"a": {}: 1}', '{"a": {}'),
        ("[" * 1000, "[" * 200),
    ],
)
def test_a_mistake_leaves_the_valid_beginning(text: str, beginning: str) -> None:
    stream = JsonStream()
    stream.feed(text)
    assert (stream.broken, stream.text) == (True, beginning)
