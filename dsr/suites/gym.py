"""Suites of reasoning-gym: `gym:NAME[:KEY=VALUE...][,NAME...]`, questions that it generates and judges.

`size` is the number of questions of a task, `seed` chooses them (0 without). Other keys are fields of the task's
configuration in reasoning-gym, which make it easier or harder; a list is written with "|" between its items. The tasks
take turns, so the first questions of a suite are of all tasks.

A library of another version may make other questions, so the version is part of the suite's digest.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsr.suites.problem import Judgement, Suite, SuiteProblem, made_id
from runtime.base.errors import DsrError, NotFound, UsageError
from runtime.confined.box import Boxed, BoxLimits, python_folders, why_not

NAME = "gym"
TESTED = "0.1.25"
_PACKAGE = "reasoning-gym"
USUAL_SIZE = 20
_MOST = 1000  # questions of a task: the size that the worker gives to generators

# Twelve tasks that Qwen2.5-Coder-0.5B solves partly, with settings that keep them within its reach: docs/log.md,
# 2026-11-30.
LAPTOP: Mapping[str, Mapping[str, str]] = {
    "gsm_symbolic": {},
    "chain_sum": {"max_digits": "3"},
    "basic_arithmetic": {"max_digits": "2"},
    "number_sequence": {},
    "lcm": {"max_value": "30"},
    "complex_arithmetic": {},
    "number_format": {},
    "number_sorting": {"max_numbers": "5", "max_decimals": "1"},
    "number_filtering": {"max_numbers": "6", "max_decimals": "2"},
    "needle_haystack": {"max_num_statements": "30"},
    "calendar_arithmetic": {},
    "syllogism": {},
}
_SECONDS = 10.0  # for one answer
_SECONDS_TO_MAKE = 120.0  # for the questions of a task; arc_agi and knight_swap take some seconds
_LIMITS = BoxLimits(seconds=24 * 3600.0, memory=6 << 30, files=64 << 20)

# Where there is no sandbox, an answer that could call something is not given to a verifier that may evaluate it.
_CALL = re.compile(r"[\w\])}'\"]\s*\(")


@dataclass(frozen=True, slots=True)
class GymTask:
    """A task of reasoning-gym, with settings of its configuration as text. `size`: questions, None for as needed."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None

    @property
    def config(self) -> dict[str, str]:
        return {"seed": "0", **self.settings}

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{key}={value}" for key, value in self.settings.items())])


def version() -> str:
    """Returns the version of the installed reasoning-gym. Raises NotFound with the command that installs it."""
    from importlib import metadata

    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        raise NotFound(
            f"suites with gym: need {_PACKAGE}, which is not installed",
            hint=f"{sys.executable} -m pip install {_PACKAGE}=={TESTED}",
        ) from None


def tasks_of(text: str) -> tuple[GymTask, ...]:
    """Returns the tasks of "gcd:max_value=50,chain_sum" or of "laptop:seed=3". Raises UsageError."""
    found: list[GymTask] = []
    for part in text.split(","):
        name, *given = (each.strip() for each in part.split(":"))
        if not name:
            raise UsageError(f"gym:{text} names no task", hint="as in gym:gsm_symbolic, or gym:laptop")
        settings = dict(_setting(name, each) for each in given)
        size = _size(settings.pop("size", None))
        if name == "laptop":
            found += [GymTask(each, {**own, **settings}, size) for each, own in LAPTOP.items()]
        else:
            found.append(GymTask(name, settings, size))
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"gym:{text} names {twice} twice")
    return tuple(found)


def _setting(name: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UsageError(f"a setting is written KEY=VALUE, not {text!r}", hint=f"as in gym:{name}:seed=1")
    return key, value


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise UsageError(f"a task has 1 to {_MOST} questions, not {text}")
    return int(text)


def gym_suite(text: str, limit: int | None, worker: Worker | None = None) -> Suite:
    """Returns the suite of the text after "gym:", with as many questions as `limit` needs, or 20 of each task.

    Raises NotFound (no reasoning-gym, no such task) and UsageError (a setting).
    """
    library = version() if worker is None else TESTED
    tasks = tasks_of(text)
    worker = worker or Worker()
    try:
        needed = -(-limit // len(tasks)) if limit else USUAL_SIZE
        made = {task.name: worker.make(task, min(task.size or needed, _MOST)) for task in tasks}
    except BaseException:
        worker.close()
        raise
    problems: dict[str, tuple[SuiteProblem, GymTask, int]] = {}
    for number in range(max(map(len, made.values()))):
        for task in tasks:
            if number < len(made[task.name]):
                question, answer = made[task.name][number]
                problem = SuiteProblem(
                    made_id(task.name, number, question), question, answer, task.name, checker="verifier"
                )
                problems[problem.id] = problem, task, number
    source = f"{_PACKAGE} {library}: {json.dumps([[task.name, task.config] for task in tasks])}"
    return Suite(
        f"{NAME}:{text}",
        tuple(problem for problem, _, _ in problems.values()),
        "boxed-answer",
        source,
        _Verifiers(worker, {name: (task, number) for name, (_, task, number) in problems.items()}),
    )


@dataclass(slots=True)
class _Verifiers:
    """The judge of a suite: the verifier of each problem's task."""

    worker: Worker
    places: Mapping[str, tuple[GymTask, int]]

    def judge(self, problem: SuiteProblem, answer: str | None, reply: str) -> Judgement:
        """An answer is right if the verifier gives the full score, 1: lower ones are for answers that come close."""
        ours = problem.is_solved_by(answer) if problem.answer else None
        if answer is None:
            return Judgement(False)
        if not self.worker.boxed and _CALL.search(answer):
            return Judgement(bool(ours))
        score = self.worker.score(*self.places[problem.id], answer)
        return Judgement(score >= 1.0 - 1e-9, ours)

    def close(self) -> None:
        self.worker.close()


class Worker:
    """The process with reasoning-gym. It starts with the first question, and again after it was ended."""

    def __init__(self) -> None:
        self._box: Boxed | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.boxed = why_not() is None

    def make(self, task: GymTask, count: int) -> Sequence[tuple[str, str]]:
        """Returns the questions of a task with their answers. Raises NotFound, UsageError."""
        said = self._say({"name": task.name, "config": task.config, "count": count}, _SECONDS_TO_MAKE)
        if said is None:
            raise DsrError(f"reasoning-gym made no questions of {task.name} in {_SECONDS_TO_MAKE:.0f} seconds")
        if "error" in said:
            raise _refused(task, said)
        return [(entry["question"], entry["answer"]) for entry in said["entries"]]

    def score(self, task: GymTask, index: int, answer: str) -> float:
        """Returns the score of an answer, 0 to 1; 0 for one that breaks the verifier or takes too long."""
        asked = {"name": task.name, "config": task.config, "index": index, "answer": answer}
        said = self._say(asked, _SECONDS)
        return float((said or {}).get("score", 0.0))

    def close(self) -> None:
        if self._box is not None:
            self._box.stop()
        elif self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        self._box = self._process = None

    def _say(self, asked: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
        """Returns the answer; None if the process ended or took too long. The next question starts it again."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        line = b""
        try:
            with suppress(OSError):
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()
        if not line.endswith(b"\n") or process.poll() is not None:
            self.close()
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            return None
        return said

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            file = Path(__file__).with_name("gym_worker.py")
            command = [sys.executable, "-P", "-s", str(file)]
            if self.boxed:
                self._box = Boxed(command, _LIMITS, [*python_folders(), file.parent])
                self._process = self._box.process
            else:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for dsr
                )  # fmt: skip
        return self._process


def _refused(task: GymTask, said: Mapping[str, Any]) -> DsrError:
    """Returns the error for what the worker could not make."""
    known = list(said["known"])
    if not known:
        return UsageError(f"reasoning-gym cannot make {task}: {said['error']}")
    wrong = re.findall(r"'([^']*)'", said["error"])[-1]
    close = difflib.get_close_matches(wrong, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(known)}"
    return (UsageError if "setting" in said["error"] else NotFound)(said["error"], hint=hint)
