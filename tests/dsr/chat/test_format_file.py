"""`dsr chat --format`: the form of an answer, from a word or a file to what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsr import cli
from dsr.chat.format_file import grammar_of
from runtime.base.errors import NotFound, UsageError
from runtime.engine.grammar import JSON_OBJECT, Grammar
from runtime.strategies.strategy import find
from tests.dsr.chat.chatting import conversation

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["answer"],
    "additionalProperties": False,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def chat(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["chat", "--threads", "1", "--no-log", *arguments])


def test_the_form_is_a_json_object_or_the_schema_of_a_file(file: Path) -> None:
    assert grammar_of("json") == JSON_OBJECT
    assert grammar_of(str(file)) == Grammar("json_schema", json.dumps(SCHEMA))


def test_a_file_that_is_no_schema_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.json: no such file"):
        grammar_of(str(tmp_path / "none.json"))
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UsageError, match=r"list\.json: a JSON Schema is an object, not \[1\]"):
        grammar_of(str(tmp_path / "list.json"))


def test_the_answer_is_printed_as_it_is_and_the_thought_stays_free(file: Path) -> None:
    result = chat("--temp", "0", "--format", str(file), "What is 347 + 586?")
    assert result.exit_code == 0
    assert set(json.loads(result.stdout)) == {"answer"}
    assert "H:3+5+1=9=>933" in result.stderr
    whole = json.loads(chat("--temp", "0", "--format", str(file), "--json", "What is 347 + 586?").stdout)
    assert whole["answer"] + "\n" == result.stdout
    assert whole["finish_reason"] == "stop"


def test_a_schema_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"properties": {"a": {"not": {}}}}')
    result = chat("--format", str(tmp_path / "schema.json"), "-m", "nano", "Hello there")
    assert result.exit_code == 2
    said = 'error: the grammar cannot be used at /properties/a: Unimplemented keys: ["not"]'
    assert said in result.stderr.splitlines()


def test_a_vote_counts_values_and_its_samples_keep_to_the_form() -> None:
    replies = ('<think>hm</think>{"a":1}', '<think>so</think>{"a": 1}', "<think>x</think>[2]", "nothing")
    talk = conversation(*replies, slots=4)
    talk.options.strategy = find("vote").configured(["n=4", "stop=none"])
    talk.options.grammar = Grammar("regex", '{"a":1}|{"a": 1}|[2]')
    for _ in talk.ask("?"):
        pass
    assert talk.last is not None and talk.last.verdict is not None
    verdict = talk.last.verdict
    assert [(each.answer, each.votes) for each in verdict.tally] == [("[2]", 2), ('{"a": 1}', 2)]
    assert [each.completion.answer for each in verdict.samples] == ['{"a":1}', '{"a": 1}', "[2]", "[2]"]
