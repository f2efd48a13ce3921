from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import answers
from runtime.answers.json_value import json_answer

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('{"b": 1, "a": [2.0, "x"]}', '{"a": [2, "x"], "b": 1}'),
        ('\n [1,\n  2 ] \n', "[1, 2]"),
        ('{"answer": "The answer is 5."}', '{"answer": "The answer is 5."}'),
        ('{"größe": 1}', '{"größe": 1}'),
    ],
)  # fmt: skip
def test_a_reply_in_json_is_its_own_answer(reply: str, answer: str) -> None:
    assert answers.extract(reply) == answer


@pytest.mark.parametrize("reply", ["933", '"yes"', "true", "{1, 2}", '{"a": 1', "[" * 100_000 + "]" * 100_000])
def test_other_replies_are_no_json(reply: str) -> None:
    assert json_answer(reply) is None


def test_a_long_reply_in_json_is_an_answer() -> None:
    assert answers.extract(json.dumps(["word"] * 1000)) == json.dumps(["word"] * 1000)


def test_answers_in_json_are_equal_by_value() -> None:
    assert answers.are_equal('{"a": 1, "b": [1]}', '{"b":[1.0],"a":1}')
    assert not answers.are_equal('{"a": "Paris"}', '{"a": "paris"}')
    assert not answers.are_equal('{"a": 1}', '{"a": 2}')
    assert not answers.are_equal("[1, 2]", "[2, 1]")
    assert answers.groups(['{"a": 1}', '{"a":1}', '{"a": 2}', None]) == ((0, 1), (2,))


@given(VALUES)
def test_every_way_to_write_a_value_is_one_answer(value: object) -> None:
    written = json.dumps([value])
    answer = json_answer(written)
    assert answer is not None
    assert answer == json_answer(json.dumps([value], indent=3, ensure_ascii=False))
    assert json.loads(answer) == json.loads(written)
