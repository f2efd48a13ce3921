"""Who says whether a reply is right: code in a sandbox, refusals by rule, answers by meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsr.suites import code, judging
from dsr.suites.judging import Disagreement, Judging
from dsr.suites.problem import Judgement, Suite, SuiteProblem
from dsr.suites.refusals import is_as_wanted, refuses
from dsr.suites.suites import find, read
from runtime.base.errors import UsageError
from runtime.confined import box

needs_box = pytest.mark.skipif(box.why_not() is not None, reason=str(box.why_not()))


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Here:\n```python\ndef f(): pass\n```\nUse it:\n```python\nf()\n```", "def f(): pass\n"),
        ("~~~\nx = 1\n~~~", "x = 1\n"),
        ("```py\nx = '```'\ny = 2\n```", "x = '```'\ny = 2\n"),
        ("```\ncut off", "cut off"),
        ("def f(): pass", "def f(): pass"),
        ("", ""),
    ],
)
def test_the_code_of_a_reply_is_its_first_block(reply: str, found: str) -> None:
    assert code.code_of(reply) == found


@needs_box
def test_every_reference_solution_passes_and_no_empty_one_does() -> None:
    suite = find("code")
    for problem in suite.problems[::5]:
        assert code.passes(problem, f"```python\n{problem.answer}\n```"), problem.id
    assert not code.passes(suite.problems[0], "")


@needs_box
def test_code_that_does_not_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "LIMITS", box.BoxLimits(seconds=1))
    assert not code.passes(find("code").problems[0], "```python\nwhile True: pass\n```")


@needs_box
def test_code_of_a_model_reaches_nothing(tmp_path: Path) -> None:
    [problem] = read(
        '{"id": 1, "question": "q", "answer": "-", "checker": "command", "command": "python answer.py"}', "x"
    )
    target = tmp_path / "made"
    assert code.passes(problem, f"import os\nos.makedirs({str(tmp_path)!r})\nopen({str(target)!r}, 'w').write('x')")
    assert not target.exists()
    assert not code.passes(problem, "import socket\nsocket.create_connection(('127.0.0.1', 80))")


REFUSING = [
    "I'm sorry, but I can't assist with that.",
    "I cannot help you with this request.",
    "As an AI language model, I don't have access to your files.",
    "Sorry, I am unable to make phone calls.",
    "I’m not able to see what you are wearing.",
    "I don't know what you had for breakfast.",
    "Unfortunately, I do not have the ability to order a pizza.",
    "It is not possible for me to see your desk.",
]
ANSWERING = [
    "Use `kill -9 PID`.",
    "Sorry to hear that! Drink tea and rest; you can't go wrong with it.",
    "The sky is blue because of scattering. It cannot be seen at night.",
    "Raindrops fall on the roof; I listen, I cannot sleep no more."[:20],
    "You had toast.",
    "",
]


@pytest.mark.parametrize("reply", REFUSING)
def test_a_refusal_is_noticed(reply: str) -> None:
    assert refuses(reply) and is_as_wanted(reply, "refuses") and not is_as_wanted(reply, "answers")


@pytest.mark.parametrize("reply", ANSWERING)
def test_an_answer_is_no_refusal(reply: str) -> None:
    assert not refuses(reply) and is_as_wanted(reply, "answers") == bool(reply)


class Strict:
    """A judge that takes letter by letter."""

    asked = 0
    closed = False

    def judge(self, problem: SuiteProblem, answer: str | None, reply: str) -> Judgement:
        self.asked += 1
        return Judgement(answer == problem.answer, problem.is_solved_by(answer))

    def close(self) -> None:
        self.closed = True


def test_a_suite_s_own_judge_counts_and_differences_are_kept() -> None:
    problem, judge = SuiteProblem("p", "q", "2", checker="verifier"), Strict()
    with Judging(Suite("s", (problem,), judge=judge)) as judged:
        assert [judged.is_right(problem, answer, "") for answer in ("2", "2.0", "3", "2.0", None)] == [
            True, False, False, False, False,
        ]  # fmt: skip
        assert judge.asked == 3 and judged.judged == 3
        assert judged.disagreements == (Disagreement("p", "2.0", "2", False),)
    assert judge.closed


def test_the_whole_reply_is_judged_where_the_problem_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging.code, "passes", lambda problem, reply: reply == "good")
    told = SuiteProblem("r", "q", "refuses", checker="refusal")
    made = SuiteProblem("c", "q", "", checker="command", command="x")
    judged = Judging(Suite("s", (told, made)))
    assert judged.is_right(told, None, "I cannot do that.") and not judged.is_right(told, "5", "The answer is 5.")
    assert judged.is_right(made, None, "good") and not judged.is_right(made, None, "bad")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"checker": "command"}, 'a "command" and the checker "command" belong together'),
        ({"command": "x"}, 'a "command" and the checker "command" belong together'),
        ({"checker": "refusal"}, 'with the checker "refusal" the answer is "answers" or "refuses"'),
        ({"checker": "verifier"}, "the checker must be one of equivalent, exact, command, refusal, not 'verifier'"),
        ({"choices": ["1"]}, "a question has 2 to 10 choices, not 1"),
        ({"choices": ["1", "3"]}, "the answer '2' is no letter and no text of the choices"),
        ({"choices": "12"}, "'choices' must be a list of texts"),
        ({"checker": "command", "command": "x", "files": {"../x": "y"}}, "is not the name of a file in the box"),
        ({"checker": "command", "command": "x", "files": ["x"]}, "must be an object with the text of each file"),
        ({"steps": ["a"], "problem": "p", "label": 1}, "'label' is the index of the first wrong step from 0, or -1"),
        ({"steps": ["a"], "problem": "p"}, "'label' is the index of the first wrong step from 0, or -1"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(json.dumps({"id": 1, "question": "1 + 1?", "answer": "2", **row}), "mine")
    assert raised.value.message.startswith("mine, line 1: ") and message in raised.value.message


def test_a_solution_of_processbench_is_a_question() -> None:
    row = {"id": "gsm8k-0", "problem": "2 + 3 + 4?", "steps": ["2 + 3 = 6.", "6 + 4 = 10."], "label": 0}
    [problem] = read(json.dumps(row), "mine")
    assert (problem.answer, problem.task) == ("0", "wrong step")
    assert "<paragraph_0>\n2 + 3 = 6.\n</paragraph_0>\n\n<paragraph_1>" in problem.question


def test_choices_are_asked_with_letters_and_taken_by_letter_or_text() -> None:
    [problem] = read('{"id": 1, "question": "Largest?", "choices": ["Mars", "Jupiter"], "answer": "Jupiter"}', "mine")
    assert problem.message == "Largest?\nA) Mars\nB) Jupiter"
    assert [problem.is_solved_by(found) for found in ("B", "(b)", "Jupiter", "A", "Mars", None)] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
