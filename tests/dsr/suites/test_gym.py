"""Suites of reasoning-gym, with a worker that obeys its interface, and with the library where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest

from dsr.suites import gym
from dsr.suites.gym import GymTask, Worker, gym_suite, tasks_of
from dsr.suites.problem import Judgement, Suite
from dsr.suites.suites import find
from runtime.base.errors import NotFound, UsageError


class FakeWorker(Worker):
    """Makes "NAME 0?", "NAME 1?", ..., whose answers are 0, 1, ...; the verifier is letter by letter."""

    def __init__(self, *, boxed: bool = True) -> None:
        super().__init__()
        self.boxed = boxed
        self.asked: list[str] = []
        self.closed = False

    def make(self, task: GymTask, count: int) -> Sequence[tuple[str, str]]:
        return [(f"{task} {number}?", str(number)) for number in range(count)]

    def score(self, task: GymTask, index: int, answer: str) -> float:
        self.asked.append(answer)
        return 1.0 if answer == str(index) else 0.5

    def close(self) -> None:
        self.closed = True


def test_tasks_have_settings_of_their_own() -> None:
    assert tasks_of("gcd:max_value=50:size=5,chain_sum") == (
        GymTask("gcd", {"max_value": "50"}, 5),
        GymTask("chain_sum"),
    )
    assert GymTask("gcd", {"max_value": "50"}).config == {"seed": "0", "max_value": "50"}


def test_the_set_for_laptops_has_twelve_tasks() -> None:
    tasks = tasks_of("laptop:seed=3")
    assert len(tasks) == 12 and tasks[0].name == "gsm_symbolic"
    assert {task.settings["seed"] for task in tasks} == {"3"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gym: names no task"),
        ("gcd,", "gym:gcd, names no task"),
        ("gcd:max_value", "a setting is written KEY=VALUE, not 'max_value'"),
        ("gcd:size=0", "a task has 1 to 1000 questions, not 0"),
        ("gcd:size=many", "a task has 1 to 1000 questions, not many"),
        ("gcd,lcm,gcd:seed=1", "gym:gcd,lcm,gcd:seed=1 names gcd twice"),
    ],
)
def test_what_names_no_tasks_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        tasks_of(text)
    assert raised.value.message == message


def test_tasks_take_turns_and_a_limit_makes_as_many_as_it_needs() -> None:
    suite = gym_suite("gcd,lcm:size=2", 5, FakeWorker())
    assert [problem.question for problem in suite.problems] == ["gcd 0?", "lcm 0?", "gcd 1?", "lcm 1?", "gcd 2?"]
    assert len(gym_suite("gcd", None, FakeWorker()).problems) == 20
    assert suite.problems[0].id == "gcd-0-67af2c"


def test_more_questions_are_the_same_suite_and_other_settings_are_another_one() -> None:
    few, many = gym_suite("gcd", 2, FakeWorker()), gym_suite("gcd", 9, FakeWorker())
    assert few.digest == many.digest and many.problems[:2] == few.problems
    assert gym_suite("gcd:seed=1", 2, FakeWorker()).digest != few.digest
    assert few.source == 'reasoning-gym 0.1.25: [["gcd", {"seed": "0"}]]'


def test_the_library_judges_and_our_own_rule_is_told() -> None:
    worker = FakeWorker()
    suite = gym_suite("gcd", 3, worker)
    assert suite.judge is not None
    two = suite.problems[2]
    assert suite.judge.judge(two, "2", "") == Judgement(True, True)
    assert suite.judge.judge(two, "2.0", "") == Judgement(False, True)
    assert suite.judge.judge(two, "3", "") == Judgement(False, False)
    assert suite.judge.judge(two, None, "") == Judgement(False)
    suite.judge.close()
    assert worker.closed


def test_without_a_sandbox_an_answer_that_calls_something_is_not_evaluated() -> None:
    worker = FakeWorker(boxed=False)
    suite = gym_suite("gcd", 3, worker)
    assert suite.judge is not None
    assert suite.judge.judge(suite.problems[2], "exit(2)", "") == Judgement(False)
    assert suite.judge.judge(suite.problems[2], "(2)", "") == Judgement(False, True)
    assert worker.asked == ["(2)"]


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(NotFound) as raised:
        find("gym:gcd")
    assert raised.value.message == "suites with gym: need reasoning-gym, which is not installed"
    assert (raised.value.hint or "").endswith("-m pip install reasoning-gym==0.1.25")


# --- a process that speaks as the worker does ------------------------------------------------------------------------

_WORKER = """
import json, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if "answer" in asked:
        if asked["answer"] == "dies":
            sys.exit(1)
        if asked["answer"] == "hangs":
            time.sleep(60)
        said = {"score": 1.0 if asked["answer"] == "yes" else 0.0}
    elif asked["name"] == "gcd":
        said = {"entries": [{"question": "q", "answer": "a"}], "config": {}}
    else:
        said = {"error": "reasoning-gym has no task 'gdc'", "known": ["gcd", "lcm"]}
    print(json.dumps(said), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    (tmp_path / "gym_worker.py").write_text(_WORKER)
    monkeypatch.setattr(gym, "__file__", str(tmp_path / "gym.py"))
    monkeypatch.setattr(gym, "_SECONDS", 60.0)
    made = Worker()
    yield made
    made.close()


def test_a_verifier_that_dies_or_hangs_gives_nothing_and_starts_again(worker: Worker) -> None:
    task = GymTask("gcd")
    assert worker.make(task, 1) == [("q", "a")]
    assert [worker.score(task, 0, answer) for answer in ("yes", "dies", "yes", "no")] == [1.0, 0.0, 1.0, 0.0]


def test_a_verifier_that_hangs_is_ended(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "_SECONDS", 0.5)
    assert worker.score(GymTask("gcd"), 0, "hangs") == 0.0


def test_an_unknown_task_is_told_a_similar_one(worker: Worker) -> None:
    with pytest.raises(NotFound) as raised:
        worker.make(GymTask("gdc"), 1)
    assert (raised.value.message, raised.value.hint) == ("reasoning-gym has no task 'gdc'", "did you mean gcd?")


# --- the library itself ----------------------------------------------------------------------------------------------


def _installed() -> bool:
    try:
        return metadata.version("reasoning-gym") == gym.TESTED
    except metadata.PackageNotFoundError:
        return False


needs_library = pytest.mark.skipif(not _installed(), reason=f"reasoning-gym {gym.TESTED} is not installed")


@pytest.fixture
def real() -> Iterator[Suite]:
    suite = find("gym:gcd:max_value=50,chain_sum,string_insertion", limit=5)
    yield suite
    assert suite.judge is not None
    suite.judge.close()


@needs_library
def test_seeds_make_the_same_questions_everywhere(real: Suite) -> None:
    first, second, third = real.problems[:3]
    assert first.id == "gcd-0-69ee2d" and first.answer == "2"
    assert (
        second.question
        == "State the final answer to the following arithmetic problem: 1663 - 5242 - 9376 - 8961 + 7634 ="
    )
    assert second.answer == "-14282" and second.id == "chain_sum-0-129900"
    assert third.id == "string_insertion-0-4c9e7f"


@needs_library
def test_verifiers_of_the_library_judge(real: Suite) -> None:
    assert real.judge is not None
    gcd, _, insertion = real.problems[:3]
    assert [real.judge.judge(gcd, answer, "") for answer in ("2", "2.0", "3")] == [
        Judgement(True, True),
        Judgement(False, True),
        Judgement(False, False),
    ]
    harmful = f"__import__('pathlib').Path({json.dumps('/box/x')}).touch() or {insertion.answer!r}"
    assert not real.judge.judge(insertion, harmful, "").right


@needs_library
def test_settings_of_the_library_are_checked() -> None:
    with pytest.raises(UsageError) as raised:
        find("gym:gcd:max_valeu=50")
    assert raised.value.message == "gcd has no setting 'max_valeu'"
    assert raised.value.hint == "did you mean max_value?"
    with pytest.raises(UsageError, match="reasoning-gym cannot make gcd:max_value=many: ValueError"):
        find("gym:gcd:max_value=many")


@needs_library
def test_the_set_for_laptops_can_be_made() -> None:
    suite = find("gym:laptop", limit=24)
    # The hashes of the questions: another version of the library, or of Python, must not change them unnoticed.
    assert [problem.id for problem in suite.problems[:12]] == [
        "gsm_symbolic-0-923419", "chain_sum-0-4ce33a", "basic_arithmetic-0-17265c", "number_sequence-0-7b9544",
        "lcm-0-54e3c5", "complex_arithmetic-0-40b29c", "number_format-0-6f27b7", "number_sorting-0-ff6476",
        "number_filtering-0-a6d59a", "needle_haystack-0-ceabdf", "calendar_arithmetic-0-9f5550",
        "syllogism-0-c1a45c",
    ]  # fmt: skip
    assert len(suite.problems) == 24 and len({problem.task for problem in suite.problems}) == 12
    assert suite.judge is not None
    for problem in suite.problems:
        assert suite.judge.judge(problem, problem.answer, "").right, problem.id
    suite.judge.close()
