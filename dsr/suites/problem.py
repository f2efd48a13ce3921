"""A question with its known answer, a suite of them, and who says whether a reply is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import prompts
from runtime import answers

# How a reply is judged. "equivalent": its answer by meaning (50 equals 50.0). "exact": its answer letter by letter.
# "command": its code, by a command in a sandbox. "refusal": whether it refuses, by rule. "verifier": by a library.
Checker = Literal["equivalent", "exact", "command", "refusal", "verifier"]

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class SuiteProblem:
    """A question with its answer. `answer` can be a solution that ends with the answer, as in GSM8K.

    `choices`: the texts to choose from; `answer` is then a letter or one of them. `command` and `files`: of the checker
    "command", see `dsr/suites/code.py`.
    """

    id: str
    question: str
    answer: str
    task: str = ""
    level: str = ""
    checker: Checker = "equivalent"
    choices: tuple[str, ...] = ()
    command: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """Returns the question, with its choices as lettered lines."""
        lines = [f"{letter}) {text}" for letter, text in zip(LETTERS, self.choices, strict=False)]
        return "\n".join([self.question, *lines])

    @property
    def right_choice(self) -> int:
        """Returns the index of the right choice. Raises ValueError if there is none."""
        if self.answer in self.choices:
            return self.choices.index(self.answer)
        return LETTERS[: len(self.choices)].index(self.answer.strip().upper() or "-")

    @property
    def by_reply(self) -> bool:
        """Whether the whole reply is judged, and not the answer that it ends with."""
        return self.checker in ("command", "refusal")

    def is_solved_by(self, found: str | None) -> bool:
        """Returns whether the answer of a reply is the right one, by dsr's own rule."""
        if self.choices:
            return found is not None and self._chosen(found) == self.right_choice
        if self.checker == "exact":
            return found is not None and found.strip() == self.answer.strip()
        return bool(self.answer) and answers.is_correct(found, self.answer)

    def _chosen(self, found: str) -> int | None:
        """Returns the index of the choice that an answer names by its letter or by its text."""
        letters = [n for n in range(len(self.choices)) if answers.are_equal(found, LETTERS[n])]
        texts = [n for n, text in enumerate(self.choices) if answers.are_equal(found, text)]
        return next(iter(letters or texts), None)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a reply is `right`. `ours`: what dsr's own rule says where somebody else judged; None where dsr did."""

    right: bool
    ours: bool | None = None


class Judge(Protocol):
    """Judges replies. `close` ends the processes that it has started."""

    def judge(self, problem: SuiteProblem, answer: str | None, reply: str) -> Judgement: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Suite:
    """Problems. `prompt`: the name of the text in `prompts/` around each question; "" for the question alone.

    `source`: what makes the questions, with its version and settings; "" where they were written. A suite with a source
    has as many problems as are wanted, so its digest does not depend on them: the id of a problem has a hash of it.
    """

    name: str
    problems: tuple[SuiteProblem, ...]
    prompt: str = ""
    source: str = ""
    judge: Judge | None = None

    @property
    def digest(self) -> str:
        """Returns the SHA-256 of the prompt and of all problems. More problems make another suite."""
        content: list[Any] = [self.prompt and prompts.read(self.prompt)]
        if self.source:
            content += [self.source]
        else:
            content += [[p.id, p.question, p.answer, p.checker, *_rare(p)] for p in self.problems]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def message(self, problem: SuiteProblem) -> str:
        """Returns the user's message for a problem."""
        asked = problem.message
        return prompts.read(self.prompt).format(question=asked) if self.prompt else asked


def _rare(problem: SuiteProblem) -> list[Any]:
    """Returns what few problems have, so that the digests of older suites stay."""
    found = [list(problem.choices), problem.command, dict(problem.files)]
    return found if any(found) else []


def made_id(name: str, number: int, question: str) -> str:
    """Returns the id of a generated problem. Another question has another id, so no old sample is taken for it."""
    return f"{name}-{number}-{hashlib.sha256(question.encode()).hexdigest()[:6]}"
