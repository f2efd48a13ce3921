"""The file of a batch: JSON lines, each a question or a conversation that ends with one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from runtime.base.errors import NotFound, UsageError
from runtime.base.quoted import quoted
from runtime.base.texts import read_text
from runtime.base.types import Message, Role

_EXAMPLE = '{"prompt": "What is 12 * 15?"}'
_DIGITS = 16  # of a key: 64 bits
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Question:
    """Line `number` of a batch, from 1. `id` is the user's own name for it, null in JSON where there is none."""

    number: int
    messages: tuple[Message, ...]
    id: str | int | None = None


def by_key(questions: Sequence[Question], conditions: Mapping[str, Any]) -> dict[str, Question]:
    """The questions by digests of themselves and of the `conditions` that decide about their answers, in their order.

    Of questions that are alike, each has a key of its own.
    """
    found: dict[str, Question] = {}
    seen: Counter[str] = Counter()
    for question in questions:
        said = [[each.role, each.content] for each in question.messages]
        digest = hashlib.sha256(json.dumps([said, conditions], sort_keys=True).encode()).hexdigest()[:_DIGITS]
        seen[digest] += 1
        found[f"{digest}-{seen[digest]}"] = question
    return found


def read_questions(path: Path, system: str = "") -> tuple[Question, ...]:
    """The questions of a file, in its order; empty lines are none. `system` begins each that has no system prompt.

    Raises NotFound, and UsageError with the number of the first line that is no question.
    """
    if not path.exists():
        raise NotFound(f"--batch {path}: no such file", hint=f"one JSON object on each line, such as {_EXAMPLE}")
    lines = read_text(path).split("\n")  # not splitlines: JSON texts may hold other line ends, such as U+2028
    questions = tuple(_question(line, path, number, system) for number, line in enumerate(lines, 1) if line.strip())
    if not questions:
        raise UsageError(f"{path}: there is no question", hint=f"one JSON object on each line, such as {_EXAMPLE}")
    return questions


def _question(line: str, path: Path, number: int, system: str) -> Question:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        raise _refused(path, number, "this is not JSON") from None
    if not isinstance(body, dict):
        raise _refused(path, number, "this is not a JSON object")
    name = body.get("id")
    if not (name is None or isinstance(name, str | int)) or isinstance(name, bool):
        raise _refused(path, number, "id is a text or an integer")
    if unknown := [key for key in body if key not in ("id", "prompt", "messages", "system")]:
        raise _refused(path, number, f"the key {quoted(unknown[0])} is not known; id, prompt, messages and system are")
    if ("prompt" in body) == ("messages" in body):
        raise _refused(path, number, "a line has either prompt or messages")
    said = [Message("user", _text(body, "prompt", path, number))] if "prompt" in body else _messages(body, path, number)
    first = _text(body, "system", path, number) if "system" in body else system
    if first and said[0].role != "system":
        said.insert(0, Message("system", first))
    return Question(number, tuple(said), name)


def _messages(body: Mapping[str, Any], path: Path, number: int) -> list[Message]:
    listed = body["messages"]
    if not isinstance(listed, list) or not listed or not all(isinstance(each, dict) for each in listed):
        raise _refused(path, number, "messages is a list of objects with role and content")
    said = []
    for each in listed:
        if each.get("role") not in _ROLES:
            raise _refused(path, number, f"the role of a message is one of {', '.join(_ROLES)}")
        said.append(Message(cast(Role, each["role"]), _text(each, "content", path, number)))
    if said[-1].role != "user":
        raise _refused(path, number, "the last message is the user's")
    return said


def _text(body: Mapping[str, Any], key: str, path: Path, number: int) -> str:
    text = body.get(key)
    if not isinstance(text, str) or (key == "prompt" and not text.strip()):
        raise _refused(path, number, f"{key} is a text")
    return text


def _refused(path: Path, number: int, why: str) -> UsageError:
    return UsageError(f"{path}, line {number}: {why}", hint=f"a line looks like {_EXAMPLE}")
