"""`dsr chat --logprobs`: the probabilities of the tokens, for programs and for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dsr.chat.logprobs import TokensDrawn, chat_logprobs, logprob_lines
from dsr.cli import app
from runtime.base.events import TextDrawn, TokenDrawn
from runtime.base.types import TokenLogprob

DRAWN = TokenDrawn(0, "answer", 7, b"\n9", -0.0, (TokenLogprob(7, b"\n9", -0.0), TokenLogprob(8, b"\x1b", -2.3025851)))
HALF = TokenDrawn(0, "thinking", 3, b"\xc3", -0.6931472, ())
QUESTION = "What is 347 + 586?"


def asked(*words: str) -> Any:
    result = CliRunner().invoke(app, ["chat", "nano", "--temp", "0", "--threads", "1", "--no-log", *words])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def told(rows: list[dict[str, Any]]) -> str:
    return bytes(byte for row in rows for byte in row["bytes"]).decode()


def test_answer_and_thought_have_lists_of_their_own() -> None:
    assert chat_logprobs([HALF, DRAWN]) == {
        "content": [
            {
                "id": 7,
                "token": "\n9",
                "bytes": [10, 57],
                "logprob": 0.0,
                "top_logprobs": [
                    {"id": 7, "token": "\n9", "bytes": [10, 57], "logprob": 0.0},
                    {"id": 8, "token": "\x1b", "bytes": [27], "logprob": -2.3025851},
                ],
            }
        ],
        "refusal": None,
        "reasoning": [{"id": 3, "token": "\ufffd", "bytes": [195], "logprob": -0.6931472, "top_logprobs": []}],
    }


def test_a_person_reads_a_line_for_each_token_with_the_other_likely_ones() -> None:
    assert logprob_lines([HALF, DRAWN]) == [
        'thinking   -0.6931   50.00 %  "\ufffd"',
        'answer      0.0000  100.00 %  "\\n9"   "\\u001b" 10.00 %',
    ]


def test_tokens_are_kept_by_sample() -> None:
    tokens = TokensDrawn()
    other = TokenDrawn(1, "answer", 5, b"x", -1.0, ())
    for event in (HALF, other, TextDrawn(0, "answer", "x"), DRAWN):
        tokens.hear(event)
    assert (tokens.of(0), tokens.of(1), tokens.of(2)) == ((HALF, DRAWN), (other,), ())


def test_one_question_tells_every_token_of_thought_and_answer() -> None:
    body = asked("--logprobs", "2", "--json", "-p", QUESTION)
    found = body["logprobs"]
    assert told(found["content"]).strip() == body["answer"] == "The answer is \\boxed{933}."
    assert told(found["reasoning"]).removesuffix("</think>").strip() == body["thinking"].strip()
    first = found["reasoning"][0]
    assert [each["token"] for each in first["top_logprobs"]] == ["Let", "A"]
    assert [each["logprob"] for each in first["top_logprobs"]] == pytest.approx([-0.620, -0.783], abs=0.02)
    assert (first["token"], first["logprob"]) == ("Let", first["top_logprobs"][0]["logprob"])


def test_without_the_option_there_are_none() -> None:
    assert asked("--json", "-p", QUESTION)["logprobs"] is None
    assert asked("--logprobs", "--json", "-p", QUESTION)["logprobs"]["content"][0]["top_logprobs"] == []


@pytest.mark.parametrize("more", [[], ["--vote", "2"]])
def test_a_batch_tells_those_of_each_answer(tmp_path: Path, more: list[str]) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"prompt": QUESTION}) + "\n" + json.dumps({"prompt": "What is 12 + 30?"}) + "\n")
    words = ["chat", "nano", "--batch", str(file), "--temp", "0", "--threads", "1", "--logprobs=1", *more]
    result = CliRunner().invoke(app, words)
    for line in result.stdout.splitlines():
        body = json.loads(line)
        assert told(body["logprobs"]["content"]).strip() == body["answer"]
        assert {len(each["top_logprobs"]) for each in body["logprobs"]["content"]} == {1}
    assert len(result.stdout.splitlines()) == 2


def test_a_terminal_or_pipe_gets_lines_beside_the_answer() -> None:
    words = ["chat", "nano", "--temp", "0", "--threads", "1", "--no-log", "--logprobs", "-p", QUESTION]
    result = CliRunner().invoke(app, words)
    assert result.stdout == "The answer is \\boxed{933}.\n"
    assert [line for line in result.stderr.splitlines() if line.endswith('"boxed"')] == [
        'answer      0.0000  100.00 %  "boxed"'
    ]
