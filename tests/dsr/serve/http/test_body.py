from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from dsr.serve.http.body import _check_shape
from dsr.serve.http.errors import Refused
from dsr.serve.http.limits import Limits

CHAT = "/v1/chat/completions"


def message(client: TestClient, body: bytes, expected: int) -> str:
    answer = client.post(CHAT, content=body)
    assert answer.status_code == expected, answer.text
    said: str = answer.json()["error"]["message"]
    return said


def test_a_body_that_is_no_json_object_is_refused(client: TestClient) -> None:
    assert message(client, b"", 400).startswith("the request is not valid JSON: ")
    assert message(client, b"{'a': 1}", 400).startswith("the request is not valid JSON: ")
    assert message(client, b"[1]", 400) == "the request must be a JSON object"
    assert message(client, b'{"a": NaN}', 400) == "the request is not valid JSON: NaN is no number of JSON"
    assert message(client, b'{"a": -Infinity}', 400).endswith("-Infinity is no number of JSON")
    assert message(client, b'{"a": "\xff"}', 400).startswith("the request is not valid JSON: ")
    assert message(client, b'{"a": ' + b"9" * 5000 + b"}", 400).startswith("the request is not valid JSON: ")


def test_half_of_a_surrogate_pair_is_refused_and_a_whole_one_is_not(client: TestClient) -> None:
    half = b'{"messages": [{"role": "user", "content": "\\ud83d"}]}'
    assert "surrogate" in message(client, half, 400)
    whole = b'{"messages": [{"role": "user", "content": "\\ud83d\\ude00"}]}'
    assert client.post(CHAT, content=whole).status_code == 200


def test_a_body_that_is_too_long_is_refused(client: TestClient) -> None:
    assert message(client, b" " * ((8 << 20) + 1), 413) == "the request has 8388609 bytes, and at most 8388608 are read"


def test_nesting_and_the_number_of_lists_are_limited() -> None:
    limits = Limits(depth=3, containers=10)
    _check_shape(bytearray(b'{"a": [{"b": 1}]}'), limits)
    with pytest.raises(Refused, match="nested deeper than 3 levels"):
        _check_shape(bytearray(b'{"a": [{"b": [1]}]}'), limits)
    with pytest.raises(Refused, match="11 objects and lists, and may have 10"):
        _check_shape(bytearray(b"[" + b"[]," * 10 + b"1]"), limits)


def test_brackets_in_texts_do_not_count() -> None:
    limits = Limits(depth=1, containers=2)
    _check_shape(bytearray(rb'{"a": "[[[[[ \" [[[[ \\"}'), limits)
    _check_shape(bytearray(b'{"a": "' + rb"\"" * 200_000), limits)  # a text that does not end takes one pass


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_the_depth_is_that_of_the_parsed_value(value: object) -> None:
    def depth(value: object) -> int:
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    for ascii_only in (True, False):
        text = bytearray(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
        for most in range(6):
            try:
                _check_shape(text, Limits(depth=most))
                fits = True
            except Refused:
                fits = False
            assert fits == (depth(value) <= most)
