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
from runtime.base.errors import DsrError, NotFound, UsageError
from runtime.base.events import Listener, Notice, ignore

# How an answer is judged: "equivalent" by its meaning (50 is 50.0), "exact" letter by letter.
Checker = Literal["equivalent", "exact"]

# The embedded model's development problems, other questions of the same tasks to profile its experts with, and short
# questions of general knowledge for every other model.
BUILT_IN = ("nano", "nano-profile", "basics")
_PROMPTS = {"basics": "short-answer"}

_SAME_KEYS = {name: name for name in ("id", "question", "answer", "task", "level", "checker")}


@dataclass(frozen=True, slots=True)
class Problem:
    """`answer` is the key, or a worked solution that ends in it as those of GSM8K do."""

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
    """`prompt` names the text of `prompts/` that questions are put into; without one they are asked as they are."""

    name: str
    problems: tuple[Problem, ...]
    prompt: str = ""

    @property
    def digest(self) -> str:
        """What it asks and how, as SHA-256. Another number of problems is another suite."""
        asked: list[Any] = [self.prompt and prompts.read(self.prompt)]
        asked += [[p.id, p.question, p.answer, p.checker] for p in self.problems]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def message(self, problem: Problem) -> str:
        """The user's message."""
        return prompts.read(self.prompt).format(question=problem.question) if self.prompt else problem.question


def find(name: str, listen: Listener = ignore) -> Suite:
    """A suite by its name, or in a file.

    Raises NotFound with the names there are, UsageError for a line that is no problem, NetworkError and what else the
    hub refuses.
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
            listen(Notice(f"{entry.name}: {len(problems)} problems, where {entry.problems} were expected"))
        return Suite(entry.name, problems, entry.prompt)
    if not path.exists():
        known = ", ".join((*BUILT_IN, *(each.name for each in hub_table.load())))
        raise NotFound(f"there is no suite {name!r}, and no such file", hint=f"one of {known}, or a file of JSONL")
    return Suite(path.stem, read(_text_of(path), str(path)))


def read(text: str, label: str, keys: Mapping[str, str] = _SAME_KEYS) -> tuple[Problem, ...]:
    """The problems of a JSONL text. `keys` tells where each field stands; without an `id` the line's number is it.

    Raises UsageError with `label` and the number of the line.
    """
    problems: dict[str, Problem] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        problem = _problem(line, f"{label}, line {number}", keys, number)
        if problem.id in problems:
            raise UsageError(f"{label}, line {number}: the id {problem.id!r} was given before")
        problems[problem.id] = problem
    if not problems:
        raise UsageError(f"{label}: there is no problem in it", hint='a line is {"id", "question", "answer"} in JSON')
    return tuple(problems.values())


def _problem(line: str, where: str, keys: Mapping[str, str], number: int) -> Problem:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
        raise UsageError(f"{where}: is no JSON: {reason}") from None
    if not isinstance(row, dict):
        raise UsageError(f"{where}: is no object", hint='a line is {"id", "question", "answer"} in JSON')
    values = {name: _word(row.get(key), f"{where}: {key!r}") for name, key in keys.items() if row.get(key) is not None}
    if "id" not in keys:
        values["id"] = str(number)
    for name in ("id", "question", "answer"):
        if not values.get(name, "").strip():
            raise UsageError(f"{where}: {keys[name]!r} is missing or empty")
    checker = values.get("checker", "equivalent")
    if checker not in get_args(Checker):
        raise UsageError(f"{where}: the checker is one of {', '.join(get_args(Checker))}, not {checker!r}")
    return Problem(**values)  # type: ignore[arg-type]  # the checker was looked at


def _word(value: Any, what: str) -> str:
    """Text, or a number as it is written: an answer may be either."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{what} must be a text or a number, not {json.dumps(value)[:40]}")
    return str(value)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: byte {error.start} is not UTF-8") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", hint="name a file of JSONL") from None
    except OSError as error:
        raise DsrError(f"{path} cannot be read: {error.strerror or error}") from None
