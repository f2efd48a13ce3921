"""Suites of problems with a known answer: built in, from a user's file, or fetched from the hub by name.

A suite is JSONL: one object per line with `question` and `answer`, an `id` of its own, and optionally `task`, `level`
and `checker`. Other keys are left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import prompts
from dsr.suites import hub_table
from runtime import answers
from runtime.base.errors import NotFound, UsageError
from runtime.base.events import Listener, Notice, ignore
from runtime.base.texts import read_text

# How answers are compared: "equivalent" by meaning (50 equals 50.0), "exact" letter by letter.
Checker = Literal["equivalent", "exact"]

# nano: questions for the embedded model. nano-profile: other questions of the same tasks, to profile its experts.
# basics: short questions of general knowledge for other models.
BUILT_IN = ("nano", "nano-profile", "basics")
_PROMPTS = {"basics": "short-answer"}

_SAME_KEYS = {name: name for name in ("id", "question", "answer", "task", "level", "checker")}


@dataclass(frozen=True, slots=True)
class SuiteProblem:
    """A question with its answer. `answer` can be a solution that ends with the answer, as in GSM8K."""

    id: str
    question: str
    answer: str
    task: str = ""
    level: str = ""
    checker: Checker = "equivalent"

    def is_solved_by(self, found: str | None) -> bool:
        if self.checker == "exact":
            return found is not None and found.strip() == self.answer.strip()
        return answers.is_correct(found, self.answer)


@dataclass(frozen=True, slots=True)
class Suite:
    """Problems. `prompt`: the name of the text in `prompts/` around each question; "" for the question alone."""

    name: str
    problems: tuple[SuiteProblem, ...]
    prompt: str = ""

    @property
    def digest(self) -> str:
        """Returns the SHA-256 of the prompt and of all problems. More problems make another suite."""
        content: list[Any] = [self.prompt and prompts.read(self.prompt)]
        content += [[p.id, p.question, p.answer, p.checker] for p in self.problems]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def message(self, problem: SuiteProblem) -> str:
        """Returns the user's message for a problem."""
        return prompts.read(self.prompt).format(question=problem.question) if self.prompt else problem.question


def find(name: str, listen: Listener = ignore) -> Suite:
    """Returns the suite with this name, or the suite in this file.

    Raises NotFound with the known names, UsageError for a line that is not a problem, NetworkError, and other errors of
    the hub.
    """
    if (known := name.casefold()) in BUILT_IN:
        text = resources.files("dsr").joinpath("data", "suites", f"{known}.jsonl").read_text(encoding="utf-8")
        return Suite(known, read(text, f"the suite {known}"), _PROMPTS.get(known, ""))
    entry = hub_table.lookup(name)
    path = Path(name).expanduser()
    if entry is not None and not path.is_file():
        text = hub_table.fetch(entry, listen)
        problems = read(text, f"{entry.repo}/{entry.file}", entry.fields)
        if len(problems) != entry.problems:
            listen(Notice(f"{entry.name}: {len(problems)} problems instead of {entry.problems}"))
        return Suite(entry.name, problems, entry.prompt)
    if not path.exists():
        known = ", ".join((*BUILT_IN, *(each.name for each in hub_table.load())))
        raise NotFound(f"there is no suite {name!r} and no such file", hint=f"one of {known}, or a JSONL file")
    return Suite(path.stem, read(read_text(path), str(path)))


def read(text: str, label: str, keys: Mapping[str, str] = _SAME_KEYS) -> tuple[SuiteProblem, ...]:
    """Returns the problems of a JSONL text. `keys`: the key of each field. Without an `id`, the line number is the id.

    Raises UsageError with `label` and the line number.
    """
    problems: dict[str, SuiteProblem] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        problem = _problem(line, f"{label}, line {number}", keys, number)
        if problem.id in problems:
            raise UsageError(f"{label}, line {number}: the id {problem.id!r} occurs twice")
        problems[problem.id] = problem
    if not problems:
        raise UsageError(
            f"{label}: has no problems", hint='each line is a JSON object with "id", "question" and "answer"'
        )
    return tuple(problems.values())


def _problem(line: str, where: str, keys: Mapping[str, str], number: int) -> SuiteProblem:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
        raise UsageError(f"{where}: is not JSON: {reason}") from None
    if not isinstance(row, dict):
        raise UsageError(
            f"{where}: is not a JSON object", hint='each line is a JSON object with "id", "question" and "answer"'
        )
    values = {name: _word(row.get(key), f"{where}: {key!r}") for name, key in keys.items() if row.get(key) is not None}
    if "id" not in keys:
        values["id"] = str(number)
    for name in ("id", "question", "answer"):
        if not values.get(name, "").strip():
            raise UsageError(f"{where}: {keys[name]!r} is missing or empty")
    checker = values.get("checker", "equivalent")
    if checker not in get_args(Checker):
        raise UsageError(f"{where}: the checker must be one of {', '.join(get_args(Checker))}, not {checker!r}")
    return SuiteProblem(**values)  # type: ignore[arg-type]  # the checker was checked above


def _word(value: Any, what: str) -> str:
    """Returns a text, or a number as text. An answer can be either."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{what} must be a text or a number, not {json.dumps(value)[:40]}")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} has half of a character: a surrogate without its other half") from None
    return str(value)
