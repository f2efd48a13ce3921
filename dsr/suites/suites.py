"""Suites of problems with a known answer: built in, generated, from a user's file, or fetched from the hub by name.

A suite is JSONL: one object per line with `question` and `answer`, an `id` of its own, and optionally `task`, `level`,
`checker`, `choices`, `command` and `files`. A line with `problem`, `steps` and `label` is a solution whose first wrong
step is to be found, as in ProcessBench. Other keys are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from dsr.suites import choices, generated, gym, hub_table
from dsr.suites.problem import LETTERS, Checker, Suite, SuiteProblem
from runtime.base.errors import NotFound, UsageError
from runtime.base.events import Listener, Notice, ignore
from runtime.base.files import expanded
from runtime.base.texts import read_text
from runtime.confined.box import inside

EMBEDDED = "nano"
BUILT_IN: Mapping[str, str] = {
    EMBEDDED: "problems for the embedded model",
    "nano-profile": "the same tasks, to profile its experts",
    "basics": "short questions of ten tasks, for any model",
    "choices": "questions of basics with four choices",
    "code": "small Python functions; needs a sandbox",
    "refusals": "harmless requests, to answer or to decline",
}
_PROMPTS = {"basics": "short-answer", "choices": "choose"}
_OF_FILE: tuple[Checker, ...] = ("equivalent", "exact", "command", "refusal")
_EXAMPLE = 'each line is a JSON object with "id", "question" and "answer"'

_SAME_KEYS = {name: name for name in ("id", "question", "answer", "task", "level", "checker", "command")}


@dataclass(frozen=True, slots=True)
class SuiteLine:
    """A line of `--list-suites`. `problems`: 0 for as many as are wanted. `judge`: how replies are judged."""

    name: str
    summary: str
    problems: int
    judge: str
    origin: Literal["built in", "generated", "reasoning-gym", "hub"]


def all_suites() -> tuple[SuiteLine, ...]:
    """Returns the suites that have a name. A JSONL file is one too."""
    lines = []
    for name, summary in BUILT_IN.items():
        problems = _built_in(name).problems
        how = {"command": "command", "refusal": "rule", "equivalent": "answer"}[problems[0].checker]
        lines.append(SuiteLine(name, summary, len(problems), how, "built in"))
    lines += [SuiteLine(name, kind.summary, 0, "answer", "generated") for name, kind in generated.GENERATED.items()]
    lines.append(SuiteLine("gym:laptop", "twelve tasks that small models partly solve", 0, "verifier", "reasoning-gym"))
    lines.append(SuiteLine("gym:NAME,...", "any tasks of reasoning-gym", 0, "verifier", "reasoning-gym"))
    lines += [SuiteLine(each.name, each.repo, each.problems, "answer", "hub") for each in hub_table.load()]
    return tuple(lines)


def find(name: str, listen: Listener = ignore, limit: int | None = None) -> Suite:
    """Returns the suite with this name, or the suite in this file. A generated one has `limit` problems.

    Raises NotFound with the known names, UsageError for a line that is not a problem, NetworkError, and other errors of
    the hub.
    """
    kind, *settings = name.split(":")
    if kind == gym.NAME and settings:
        return gym.gym_suite(name.partition(":")[2], limit)
    if kind in generated.GENERATED:
        return generated.generated_suite(generated.GENERATED[kind], settings, limit)
    if (known := name.casefold()) in BUILT_IN:
        return _built_in(known)
    entry = hub_table.lookup(name)
    path = expanded(name)
    if entry is not None and not path.is_file():
        text = hub_table.fetch(entry, listen)
        problems = read(text, f"{entry.repo}/{entry.file}", entry.fields)
        if len(problems) != entry.problems:
            listen(Notice(f"{entry.name}: {len(problems)} problems instead of {entry.problems}"))
        return Suite(entry.name, problems, entry.prompt)
    if not path.exists():
        names = (*BUILT_IN, *generated.GENERATED, "gym:laptop", *(each.name for each in hub_table.load()))
        raise NotFound(
            f"there is no suite {name!r} and no such file", hint=f"one of {', '.join(names)}, or a JSONL file"
        )
    problems = read(read_text(path), str(path))
    return Suite(path.stem, problems, "choose" if all(each.choices for each in problems) else "")


def _built_in(name: str) -> Suite:
    if name == "choices":
        return Suite(name, choices.with_choices(_built_in("basics").problems), _PROMPTS[name])
    text = resources.files("dsr").joinpath("data", "suites", f"{name}.jsonl").read_text(encoding="utf-8")
    return Suite(name, read(text, f"the suite {name}"), _PROMPTS.get(name, ""))


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
        raise UsageError(f"{label}: has no problems", hint=_EXAMPLE)
    return tuple(problems.values())


def _problem(line: str, where: str, keys: Mapping[str, str], number: int) -> SuiteProblem:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
        raise UsageError(f"{where}: is not JSON: {reason}") from None
    if not isinstance(row, dict):
        raise UsageError(f"{where}: is not a JSON object", hint=_EXAMPLE)
    if keys is _SAME_KEYS and "steps" in row:
        row = {**row, **_error_question(row, where)}
    values: dict[str, Any] = {
        name: _word(row.get(key), f"{where}: {key!r}") for name, key in keys.items() if row.get(key) is not None
    }
    if "id" not in keys:
        values["id"] = str(number)
    for name in ("id", "question", "answer"):
        if not values.get(name, "").strip():
            raise UsageError(f"{where}: {keys[name]!r} is missing or empty")
    if values.get("checker", "equivalent") not in _OF_FILE:
        raise UsageError(f"{where}: the checker must be one of {', '.join(_OF_FILE)}, not {values['checker']!r}")
    if keys is _SAME_KEYS:
        values["choices"] = tuple(_words(row.get("choices"), f"{where}: 'choices'"))
        values["files"] = _files(row.get("files"), f"{where}: 'files'")
    problem = SuiteProblem(**values)
    _check(problem, where)
    return problem


def _check(problem: SuiteProblem, where: str) -> None:
    """Raises UsageError for a problem whose parts do not fit together."""
    if (problem.checker == "command") != bool(problem.command.strip()):
        raise UsageError(f'{where}: a "command" and the checker "command" belong together')
    if problem.checker == "refusal" and problem.answer not in ("answers", "refuses"):
        raise UsageError(f'{where}: with the checker "refusal" the answer is "answers" or "refuses"')
    if not problem.choices:
        return
    if not 2 <= len(problem.choices) <= len(LETTERS):
        raise UsageError(f"{where}: a question has 2 to {len(LETTERS)} choices, not {len(problem.choices)}")
    try:
        _ = problem.right_choice
    except ValueError:
        raise UsageError(f"{where}: the answer {problem.answer!r} is no letter and no text of the choices") from None


def _error_question(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns question and answer of a solution with the index of its first wrong step, -1 for none."""
    steps = _words(row["steps"], f"{where}: 'steps'")
    label = row.get("label")
    if not isinstance(label, int) or isinstance(label, bool) or not -1 <= label < len(steps):
        raise UsageError(f"{where}: 'label' is the index of the first wrong step from 0, or -1; not {label!r}")
    problem = _word(row.get("problem"), f"{where}: 'problem'")
    task = generated.ALL_RIGHT if label == -1 else generated.WRONG_STEP
    question = generated.solution_question(problem, steps)
    return {"question": question, "answer": str(label), "task": task}


def _words(value: Any, what: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise UsageError(f"{what} must be a list of texts")
    return [_word(each, what) for each in value]


def _files(value: Any, what: str) -> dict[str, str]:
    """Returns texts by the names of files, which are relative and do not leave the folder."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{what} must be an object with the text of each file")
    for name in value:
        try:
            inside(name)
        except ValueError as error:
            raise UsageError(f"{what}: {error}") from None
    return {name: _word(text, f"{what}: {name!r}") for name, text in value.items()}


def _word(value: Any, what: str) -> str:
    """Returns a text, or a number as text. An answer can be either."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{what} must be a text or a number, not {json.dumps(value)[:40]}")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} has half of a character: a surrogate without its other half") from None
    return str(value)
