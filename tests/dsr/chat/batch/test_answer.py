"""`dsr chat --batch`, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.cli import app

RUNNER = CliRunner()
QUESTIONS = "".join(f'{{"prompt": "What is {number} + 586?"}}\n' for number in range(340, 344))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text(QUESTIONS)
    return path


def command(questions: Path, *more: str) -> list[str]:
    return ["chat", "nano", "--batch", str(questions), "--temp", "0", "--threads", "1", *more]


def test_results_are_printed_one_on_a_line(questions: Path) -> None:
    result = RUNNER.invoke(app, command(questions, "-q"))
    assert result.exit_code == 0
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(each["schema"], each["number"], each["id"], each["answer"]) for each in answers] == [
        ("dsr.chat.batch/1", number - 339, None, f"The answer is \\boxed{{{number + 586}}}.")
        for number in range(340, 344)
    ]


def test_the_same_command_does_nothing_twice_and_goes_on_with_new_questions(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert RUNNER.invoke(app, command(questions, "-o", str(out))).exit_code == 0
    before = out.read_bytes()
    again = RUNNER.invoke(app, command(questions, "-o", str(out)))
    assert again.exit_code == 0
    assert again.stderr == f"4 of 4 questions answered before\n4 results in {out}\n"
    assert out.read_bytes() == before
    questions.write_text(QUESTIONS + '{"prompt": "What is 12 * 15?", "id": "more"}\n')
    assert RUNNER.invoke(app, command(questions, "-o", str(out))).exit_code == 0
    assert out.read_bytes().startswith(before)
    assert json.loads(out.read_text().splitlines()[-1])["id"] == "more"


def test_other_settings_are_another_batch(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    RUNNER.invoke(app, command(questions, "-o", str(out)))
    result = RUNNER.invoke(app, command(questions, "-o", str(out), "--max-tokens", "3"))
    assert result.exit_code == 2
    assert "4 of its results belong to other questions or other settings" in result.stderr


def test_another_cache_is_another_batch(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    RUNNER.invoke(app, command(questions, "-o", str(out)))
    assert RUNNER.invoke(app, command(questions, "-o", str(out), "--kv-type", "q8_0")).exit_code == 2


def test_a_question_without_an_answer_makes_exit_code_1(questions: Path) -> None:
    questions.write_text('{"prompt": "%s"}\n{"prompt": "What is 1 + 586?"}\n' % ("long " * 3000))
    result = RUNNER.invoke(app, command(questions, "--ctx-size", "512"))
    assert result.exit_code == 1
    assert "1 question has no answer: see failure and finish_reason" in result.stderr
    assert [json.loads(line)["failure"] is None for line in result.stdout.splitlines()] == [False, True]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--resume"], "--batch and --resume exclude each other"),
        (["--file", "notes.txt"], "--batch and --file exclude each other"),
        (["-p", "and this?"], "--batch and a question exclude each other"),
        (["--strategy", "evidence"], "--batch has no files that evidence could search"),
        (["--thinking", "hide"], "--batch has no use for --thinking"),
        (["--on-full", "forget"], "--batch has no use for --on-full"),
        (["--stats"], "--batch has no use for --stats"),
        (["--edit", "fast"], "--batch has no use for --edit"),
        (["--effort", "high"], "knows no levels of effort"),
        (["--logprobs", "101"], "--logprobs must be between 0 and 100, not 101"),
    ],
)
def test_what_a_batch_has_no_use_for_is_refused(questions: Path, more: list[str], said: str) -> None:
    result = RUNNER.invoke(app, command(questions, *more))
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_answer_that_a_limit_left_empty_is_none(questions: Path) -> None:
    questions.write_text('{"prompt": "What is 347 + 586?"}\n')
    result = RUNNER.invoke(app, command(questions, "--max-tokens", "5"))
    assert result.exit_code == 1
    assert "1 question has no answer: see failure and finish_reason" in result.stderr


def test_out_needs_a_batch(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["chat", "nano", "-p", "2+2", "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "--out is for the answers of a batch" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_batch_goes_on(questions: Path, tmp_path: Path) -> None:
    questions.write_text("".join(f'{{"prompt": "What is {number} + 586?"}}\n' for number in range(300, 340)))
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    program = [sys.executable, "-m", "dsr", *command(questions, "-o", str(out))]
    with subprocess.Popen(program, env=dict(os.environ), stderr=subprocess.DEVNULL) as running:
        while running.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 3):
            pass
        running.send_signal(signal.SIGKILL)
    kept = partial.read_bytes().count(b"\n")
    assert kept > 3
    assert not out.exists()
    result = RUNNER.invoke(app, command(questions, "-o", str(out)))
    assert result.exit_code == 0
    assert f"{kept} of 40 questions answered before" in result.stderr
    answers = [json.loads(line)["answer"] for line in out.read_text().splitlines()]
    assert answers == [f"The answer is \\boxed{{{number + 586}}}." for number in range(300, 340)]
