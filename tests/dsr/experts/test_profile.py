"""`dsr experts profile` from its options to its profiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dsr.commands.experts import app
from dsr.experts.profile import ProfileRequest, make_profiles, profile_store, tasks_of
from dsr.models.library import find
from dsr.suites.problem import Suite, SuiteProblem
from quant.experts.profile import router_digest
from runtime.base.errors import Aborted, Incompatible, NotFound, UsageError
from runtime.base.events import Event, Notice, Progress
from runtime.base.run import Run, Stop
from tests.quant.models import model

run = CliRunner().invoke

RUN = Run(threads=1)

FAST = ["--limit", "2", "-n", "200", "-t", "1"]


def problem(number: int, task: str = "") -> SuiteProblem:
    return SuiteProblem(str(number), f"What is {number} + 1?", str(number + 1), task)


SUITE = Suite("mixed", (problem(1, "a"), problem(2, "b"), problem(3, "a"), problem(4), problem(5, "a")))
PLAIN = Suite("plain", (problem(1), problem(2), problem(3)))


def ids(tasks: dict[str, tuple[SuiteProblem, ...]]) -> dict[str, list[str]]:
    return {task: [each.id for each in problems] for task, problems in tasks.items()}


def test_each_task_of_a_suite_has_its_first_problems() -> None:
    assert ids(tasks_of(SUITE, None, 2)) == {"a": ["1", "3"], "b": ["2"]}
    assert ids(tasks_of(SUITE, "b", 2)) == {"b": ["2"]}
    assert ids(tasks_of(PLAIN, "sums", 2)) == {"sums": ["1", "2"]}


def test_missing_tasks_and_invalid_names_are_refused() -> None:
    with pytest.raises(NotFound, match="the suite mixed has no task 'c'") as missing:
        tasks_of(SUITE, "c", 2)
    assert missing.value.hint == "it has: a, b"
    with pytest.raises(UsageError, match="the suite plain has no tasks"):
        tasks_of(PLAIN, None, 2)
    with pytest.raises(UsageError, match=r"'\.\.' is not a valid task name"):
        tasks_of(PLAIN, "..", 2)


def test_a_task_is_profiled_from_the_models_own_answers(nano_path: Path) -> None:
    done = run(app, ["profile", "nano", "--task", "count", *FAST])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split()[:3] == ["task", "questions", "tokens"]
    assert done.stdout.splitlines()[1].split()[:2] == ["count", "2"]
    found = profile_store().get(router_digest(nano_path), "count")
    assert (found.active, found.keys.shape, sorted(found.routing)) == (4, (2, 32), [1, 2, 3])
    assert found.origin == "2 questions of nano-profile, answered by the model itself"
    for routing in found.routing.values():
        assert routing.selected.sum() == 4 * found.tokens
    # Thought and answer in the model's own format, a reply after each question.
    assert found.text.startswith("<｜begin▁of▁sentence｜><｜User｜>")
    assert found.text.count("<think>") == found.text.count("</think>") == 2
    assert found.text.endswith("<｜end▁of▁sentence｜>")
    assert (found.keys[0] != found.keys[1]).any()


def test_json_says_what_was_made_and_what_was_never_reached(nano_path: Path) -> None:
    arguments = ["profile", "nano", "--task", "boolean", "--json", "--top", "2", "--threshold", "0.25", *FAST]
    said = json.loads(run(app, arguments).stdout)
    assert {key: said[key] for key in ("schema", "model", "experts", "kept", "interrupted")} == {
        "schema": "dsr.experts.profile/1",
        "model": "nano",
        "experts": 16,
        "kept": [],
        "interrupted": False,
    }
    [made] = said["profiles"]
    found = profile_store().get(said["digest"], "boolean")
    assert (made["task"], made["questions"], made["tokens"]) == ("boolean", 2, found.tokens)
    assert made["bytes"] == Path(made["file"]).stat().st_size
    assert made["unreached"] == {str(layer): list(experts) for layer, experts in found.unreached.items()}
    assert made["unreached"], "two short questions cannot reach every expert"
    assert (found.top, found.threshold) == (2, 0.25)


def test_the_same_seed_gives_the_same_profile(nano_path: Path) -> None:
    request = ProfileRequest(task="weekday", limit=1, seed=7, force=True)
    first, second = (make_profiles(find("nano"), request, RUN).profiled[0].profile for _ in range(2))
    assert first.text == second.text
    assert first.digest == second.digest


def test_a_text_is_profiled_as_it_is(tmp_path: Path, nano_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 60)
    done = run(app, ["profile", "nano", "--text", str(text), "--task", "dickens", "-t", "1", "--quiet"])
    assert (done.exit_code, done.stdout) == (0, "dickens\n")
    found = profile_store().get(router_digest(nano_path), "dickens")
    assert (found.keys.shape, found.origin) == ((0, 32), "the text words.txt")
    assert found.text == text.read_text()
    assert found.tokens > 512
    assert all(routing.selected.sum() == 4 * found.tokens for routing in found.routing.values())


def test_existing_profiles_stay_without_force(tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 2)
    again = ProfileRequest(text=text, task="times")
    make_profiles(find("nano"), again, RUN)
    with pytest.raises(UsageError, match="the task times has a profile already") as there:
        make_profiles(find("nano"), again, RUN)
    assert there.value.hint == "--force makes it again"
    assert make_profiles(find("nano"), ProfileRequest(text=text, task="times", force=True), RUN).kept == ()


def test_a_stop_keeps_the_finished_tasks_and_the_same_command_resumes(tmp_path: Path) -> None:
    lines = [
        {"id": str(number), "task": task, "question": f"What is {number} + 1?", "answer": "0"}
        for number, task in enumerate(["first", "second"])
    ]
    suite = tmp_path / "two.jsonl"
    suite.write_text("".join(json.dumps(line) + "\n" for line in lines))
    request = ProfileRequest(suite=str(suite), max_tokens=12)
    stop = Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.job == "watching the routers" and event.finished:
            stop.set()

    made = make_profiles(find("nano"), request, Run(stop, listen, 1))
    assert ([each.profile.task for each in made.profiled], made.interrupted) == (["first"], True)
    heard: list[Event] = []
    made = make_profiles(find("nano"), request, Run(listen=heard.append, threads=1))
    assert ([each.profile.task for each in made.profiled], made.kept) == (["second"], ("first",))
    assert Notice("kept from an earlier run: first") in heard


def test_a_stop_before_the_first_profile_is_an_error(tmp_path: Path) -> None:
    stop = Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.job == "answering":
            stop.set()

    with pytest.raises(Aborted):
        make_profiles(find("nano"), ProfileRequest(task="addsub", limit=3, max_tokens=40), Run(stop, listen, 1))


def refused(**asked: Any) -> ProfileRequest:
    return ProfileRequest(**{key: Path(value) if key == "text" else value for key, value in asked.items()})


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"text": "a.txt"}, "--text needs the name of its task"),
        ({"text": "a.txt", "suite": "nano", "task": "a"}, "--suite and --text exclude each other"),
        ({"threshold": 1.5}, "between 0 and 1, not 1.5"),
        ({"task": "addsub", "seed": -1}, "the seed must be between 0"),
    ],
)
def test_requests_that_make_no_sense_are_refused(asked: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        make_profiles(find("nano"), refused(**asked), RUN)


def test_a_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("Hello.")
    with pytest.raises(UsageError, match=r"short\.txt is too short for a profile: \d tokens, at least \d+ are needed"):
        make_profiles(find("nano"), ProfileRequest(text=text, task="short"), RUN)


def test_other_models_need_questions_or_a_text(tmp_path: Path) -> None:
    path = model(tmp_path / "moe.gguf", experts=4)
    with pytest.raises(UsageError, match="no questions are given for the model to answer"):
        make_profiles(find(str(path)), ProfileRequest(), RUN)


def test_a_dense_model_is_refused_in_one_line(tmp_path: Path) -> None:
    path = model(tmp_path / "dense.gguf")
    with pytest.raises(Incompatible, match="is a dense model: it has no experts to choose from"):
        make_profiles(find(str(path)), ProfileRequest(), RUN)
