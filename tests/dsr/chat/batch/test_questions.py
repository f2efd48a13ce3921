"""The file of a batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.chat.batch.questions import Question, by_key, read_questions
from runtime.base.errors import DsrError, NotFound, UsageError
from runtime.base.types import Message


def written(folder: Path, *lines: str) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_line_is_a_question_or_a_conversation(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"prompt": "2+2"}',
        "",
        '{"id": "a", "prompt": "3+3", "system": "Be short."}',
        '{"id": 7, "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},'
        ' {"role": "user", "content": "4+4"}]}',
    )
    assert read_questions(path) == (
        Question(1, (Message("user", "2+2"),)),
        Question(3, (Message("system", "Be short."), Message("user", "3+3")), "a"),
        Question(4, (Message("user", "hi"), Message("assistant", "hello"), Message("user", "4+4")), 7),
    )


def test_a_system_prompt_is_for_lines_without_one(tmp_path: Path) -> None:
    path = written(tmp_path, '{"prompt": "a"}', '{"prompt": "b", "system": "mine"}', '{"prompt": "c", "system": ""}')
    systems = [[each.content for each in one.messages[:-1]] for one in read_questions(path, "usual")]
    assert systems == [["usual"], ["mine"], []]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "this is not JSON"),
        ("[1]", "this is not a JSON object"),
        ("[" * 5000, "this is not JSON"),
        ("{}", "a line has either prompt or messages"),
        ('{"prompt": "a", "messages": []}', "a line has either prompt or messages"),
        ('{"prompt": 3}', "prompt is a text"),
        ('{"prompt": " "}', "prompt is a text"),
        (
            '{"prompt": "a", "temperature": 1}',
            "the key temperature is not known; id, prompt, messages and system are",
        ),
        ('{"prompt": "a", "id": true}', "id is a text or an integer"),
        ('{"messages": []}', "messages is a list of objects with role and content"),
        ('{"messages": [{"role": "tool", "content": "a"}]}', "the role of a message is one of system, user, assistant"),
        ('{"messages": [{"role": "user"}]}', "content is a text"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "the last message is the user's"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = written(tmp_path, '{"prompt": "a"}', line)
    with pytest.raises(UsageError) as caught:
        read_questions(path)
    assert caught.value.message == f"{path}, line 2: {why}"
    assert caught.value.hint == 'a line looks like {"prompt": "What is 12 * 15?"}'


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no question"):
        read_questions(written(tmp_path, "", " "))
    with pytest.raises(NotFound, match="no such file"):
        read_questions(tmp_path / "none.jsonl")


def test_line_ends_of_unicode_stay_inside_a_text(tmp_path: Path) -> None:
    [question] = read_questions(written(tmp_path, '{"prompt": "one\u2028two"}'))
    assert question.messages[0].content == "one\u2028two"


def test_each_question_has_a_key_of_its_own() -> None:
    one, same, other = (Question(number, (Message("user", text),)) for number, text in enumerate("aab", 1))
    keys = [*by_key([one, same, other], {"seed": 0})]
    assert len({*keys}) == 3
    assert keys[0].removesuffix("-1") == keys[1].removesuffix("-2")
    assert keys[:1] == [*by_key([one], {"seed": 0})]
    assert keys[:1] != [*by_key([one], {"seed": 1})]


_KEYS = st.sampled_from(["id", "prompt", "messages", "system", "role", "content"])
_ATOMS = st.none() | st.booleans() | st.integers() | st.text(max_size=9)
_BODIES = st.dictionaries(_KEYS, _ATOMS | st.lists(st.dictionaries(_KEYS, _ATOMS, max_size=3), max_size=3), max_size=3)


@given(st.lists(_ATOMS | _BODIES, max_size=3))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, bodies: list[object]) -> None:
    path = written(tmp_path_factory.mktemp("any"), *map(json.dumps, bodies))
    try:
        questions = read_questions(path)
    except DsrError:
        return
    assert all(each.messages[-1].role == "user" for each in questions)
