"""Suites of problems: what a line must be, where they come from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsr.hub import client as hubs
from dsr.hub.client import Hub
from dsr.suites import hub_table
from dsr.suites.problem import Suite, SuiteProblem
from dsr.suites.suites import find, read
from runtime import answers
from runtime.base.errors import DsrError, NetworkError, NotFound, UsageError
from runtime.base.events import Event, Notice
from tests.hub_server import HubServer

LINE = '{"id": "a", "question": "1 + 1?", "answer": "2"}'


def test_a_problem_has_what_its_line_says() -> None:
    [problem] = read('{"id": 7, "question": "Q", "answer": 0.5, "task": "t", "level": 3, "checker": "exact"}', "f")
    assert problem == SuiteProblem("7", "Q", "0.5", "t", "3", "exact")


def test_empty_lines_a_byte_order_mark_and_other_keys_do_not_matter() -> None:
    text = "\ufeff\n" + LINE[:-1] + ', "domain": ["x"]}\n\n'
    assert read(text, "f") == (SuiteProblem("a", "1 + 1?", "2"),)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "b", ', "s.jsonl, line 2: is not JSON: "),
        ("[" * 100_000, "s.jsonl, line 2: is not JSON: too deeply nested"),
        ("[1]", "s.jsonl, line 2: is not a JSON object"),
        ('{"id": "b", "answer": "2"}', "s.jsonl, line 2: 'question' is missing or empty"),
        ('{"id": "b", "question": " ", "answer": "2"}', "s.jsonl, line 2: 'question' is missing or empty"),
        ('{"question": "q", "answer": "2"}', "s.jsonl, line 2: 'id' is missing or empty"),
        ('{"id": "b", "question": "q", "answer": null}', "s.jsonl, line 2: 'answer' is missing or empty"),
        ('{"id": "b", "question": "q", "answer": ["2"]}', "s.jsonl, line 2: 'answer' must be a text or a number"),
        ('{"id": "b", "question": "q", "answer": true}', "s.jsonl, line 2: 'answer' must be a text or a number"),
        (LINE.replace('"2"', '"3"'), "s.jsonl, line 2: the id 'a' occurs twice"),
        (
            LINE[:-1].replace('"a"', '"b"') + ', "checker": "sh"}',
            "line 2: the checker must be one of equivalent, exact",
        ),
    ],
)
def test_a_bad_line_is_named(line: str, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(f"{LINE}\n{line}\n", "s.jsonl")
    assert told in raised.value.message


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_suite_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="has no problems"):
        read(text, "s.jsonl")


def test_answers_are_judged_by_meaning_or_to_the_letter() -> None:
    assert SuiteProblem("a", "q", "1/2").is_solved_by("0.5")
    assert not SuiteProblem("a", "q", "1/2").is_solved_by(None)
    assert not SuiteProblem("a", "q", "1/2", checker="exact").is_solved_by("0.5")
    assert SuiteProblem("a", "q", "1/2", checker="exact").is_solved_by("1/2 ")
    assert SuiteProblem("a", "q", "She has 2 + 3 = <<2+3=5>>5.\n#### 5").is_solved_by("5")


def test_the_built_in_suite_is_the_report_s() -> None:
    suite = find("nano")
    assert len(suite.problems) == 400
    assert suite.problems[0] == SuiteProblem("777-214", "In 'road', how many letters are 'a'?", "1", "count", "1")
    assert len({problem.task for problem in suite.problems}) == 10


def test_the_basics_are_ten_tasks_of_twenty_questions_in_turn() -> None:
    suite = find("basics")
    tasks = [problem.task for problem in suite.problems]
    assert tasks[:10] == [
        "capitals", "opposites", "sums", "numbers", "word-forms", "calendar", "animals", "colours", "units", "kinds",
    ]  # fmt: skip
    assert tasks == tasks[:10] * 20
    for problem, number in zip(suite.problems, (n for n in range(1, 21) for _ in range(10)), strict=True):
        assert problem.id == f"{problem.task}-{number:02}"
        assert problem.checker == "equivalent" and problem.level == ""
        assert problem.question.endswith("?")
        assert re.fullmatch(r"[A-Za-z]{2,}|\d+", problem.answer)
    assert len({problem.question.casefold() for problem in suite.problems}) == 200
    assert suite.message(suite.problems[0]) == "Question: What is the capital of France?\nShort answer:"


SAYINGS = (
    "{}",
    "{}.",
    "**{}**",
    "Answer: {}",
    "The answer is {}.",
    "It is {}.",
    '"{}"',
    "\\boxed{{{}}}",
    "What we want is {}.",
)


def test_the_basics_accept_their_answer_however_it_is_said_and_no_other_of_the_task() -> None:
    suite = find("basics")
    for problem in suite.problems:
        for saying in SAYINGS:
            assert problem.is_solved_by(answers.extract(saying.format(problem.answer))), (problem, saying)
        others = {other.answer for other in suite.problems if other.task == problem.task} - {problem.answer}
        for other in others:
            assert not problem.is_solved_by(answers.extract(f"The answer is {other}.")), (problem, other)
            assert not problem.is_solved_by(answers.extract(f"It is not {problem.answer} but {other}.")), (
                problem,
                other,
            )
            assert not problem.is_solved_by(answers.extract(f"It is {problem.answer} or {other}.")), (problem, other)


def test_a_choice_of_the_basics_offers_its_answer() -> None:
    chosen = [p for p in find("basics").problems if p.task in ("animals", "colours", "kinds")]
    for problem in chosen:
        offered = re.split(r"(?:[:,]| or)? (?:(?:an?|or) )*", problem.question.rstrip("?"))
        assert offered.count(problem.answer) == 1, problem


def test_a_file_is_a_suite_of_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(LINE, encoding="utf-8")
    assert find(str(file)) == Suite("mine", (SuiteProblem("a", "1 + 1?", "2"),))


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        (b"\xff", UsageError, r"is not a text file \(UTF-8\): byte 0 is wrong"),
        (None, UsageError, "is a folder"),
    ],
)
def test_what_is_no_file_of_text(tmp_path: Path, content: bytes | None, error: type[DsrError], told: str) -> None:
    path = tmp_path / "x.jsonl"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(error, match=told):
        find(str(path))


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(NotFound) as raised:
        find("gsm9k")
    assert raised.value.hint == (
        "one of nano, nano-profile, basics, choices, code, refusals, errors, passkey, gym:laptop, gsm8k, math-500, "
        "aime25, or a JSONL file"
    )


def test_another_question_or_prompt_is_another_suite() -> None:
    one = Suite("s", (SuiteProblem("a", "q", "1"),))
    assert one.digest == Suite("renamed", (SuiteProblem("a", "q", "1", "task"),)).digest
    assert one.digest != Suite("s", (SuiteProblem("a", "q?", "1"),)).digest
    assert one.digest != Suite("s", (SuiteProblem("a", "q", "1"),), prompt="boxed-answer").digest


def test_mathematics_is_asked_for_a_boxed_answer() -> None:
    problem = SuiteProblem("a", "What is {x}?", "1")
    asked = Suite("s", (problem,), prompt="boxed-answer").message(problem)
    assert asked == "What is {x}?\nPlease reason step by step, and put your final answer within \\boxed{}."


def test_every_fact_of_the_table_has_a_source_or_is_marked() -> None:
    assert [entry.name for entry in hub_table.load()] == ["gsm8k", "math-500", "aime25"]
    text = """
        documents = { d = "a document" }
        [[suite]]
        name = "s"
        repo = "o/s"
        file = "f.jsonl"
        problems = 1
        fields = { question = "q", answer = "a" }
        prompt = "boxed-answer"
        source = { d = ["repo", "file"] }
        unverified = ["problems"]
    """
    with pytest.raises(ValueError, match="s: each of repo, file, problems, fields needs a source"):
        hub_table.read(text)
    with pytest.raises(ValueError, match="s: unknown key 'rows'"):
        hub_table.read(text + "\n        rows = 1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    row = {"unique_id": "test/1.json", "problem": "P", "answer": "42", "subject": "Algebra", "level": 2}
    with HubServer() as hub:
        hub.add("HuggingFaceH4/MATH-500", {"test.jsonl": (json.dumps(row) + "\n").encode(), "README.md": b"#"})
        monkeypatch.setattr(hubs, "from_environment", lambda listen: Hub(hub.url, tmp_path / "cache"))
        yield hub


def test_a_suite_comes_from_the_hub_once(server: HubServer, tmp_path: Path) -> None:
    heard: list[Event] = []
    suite = find("MATH-500", heard.append)
    assert suite.problems == (SuiteProblem("test/1.json", "P", "42", "Algebra", "2"),)
    assert suite.prompt == "boxed-answer"
    assert Notice("math-500: 1 problems instead of 500") in heard
    assert [r.path.split("?")[0] for r in server.requests] == [
        "/api/datasets/HuggingFaceH4/MATH-500/revision/main",
        "/datasets/HuggingFaceH4/MATH-500/resolve/0123456789abcdef0123456789abcdef01234567/test.jsonl",
        "/api/resolve-cache/datasets/HuggingFaceH4/MATH-500/0123456789abcdef0123456789abcdef01234567/test.jsonl",
    ]
    assert (tmp_path / "cache" / "datasets--HuggingFaceH4--MATH-500" / "refs" / "main").is_file()
    find("math-500")
    assert len(server.requests) == 3


def test_a_file_that_is_gone_from_the_dataset(server: HubServer) -> None:
    server.add("math-ai/aime25", {"test.parquet": b""})
    with pytest.raises(NotFound, match="no longer has test"):
        find("aime25")


def test_offline_without_a_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hubs, "from_environment", lambda listen: Hub("http://127.0.0.1:9", tmp_path, offline=True))
    with pytest.raises(NetworkError) as raised:
        find("gsm8k")
    assert raised.value.exit_code == 6
    assert raised.value.message == (
        "the suite gsm8k must be downloaded first: DaertML/gsm8k-jsonl: HF_HUB_OFFLINE is set, so dsr downloads nothing"
    )
    assert raised.value.hint == "unset HF_HUB_OFFLINE; the suite nano needs no network"


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gsm8k").write_text(LINE, encoding="utf-8")
    assert find("gsm8k").problems == (SuiteProblem("a", "1 + 1?", "2"),)


def test_half_of_a_character_in_a_suite_is_refused(tmp_path: Path) -> None:
    for key in ("id", "question", "answer"):
        row = {"id": "a", "question": "b", "answer": "c", key: "\ud800"}
        (tmp_path / "x.jsonl").write_text(json.dumps(row), encoding="utf-8")
        with pytest.raises(UsageError, match=f"line 1: '{key}' has half of a character"):
            find(str(tmp_path / "x.jsonl"))


def test_a_suite_may_be_in_utf_16(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": "a", "question": "Grüße?", "answer": "ja"}\n', encoding="utf-16")
    assert find(str(tmp_path / "x.jsonl")).problems[0].question == "Grüße?"
