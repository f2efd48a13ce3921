"""Suites that dsr makes itself: `errors` (find the first wrong step) and `passkey` (find a number in a long text).

The same settings make the same questions on every machine: Python's `random.Random` promises that for `random()`, and
all that is drawn here comes from it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import prompts
from dsr.suites.problem import Suite, SuiteProblem, made_id
from runtime.base.errors import UsageError

_MOST = 10_000  # questions of a suite
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ErrorSettings:
    """`steps` of each solution; half of the solutions have an error. `size`: questions, which `seed` chooses."""

    size: int = 100
    seed: int = 0
    steps: int = 6

    def __post_init__(self) -> None:
        _check("size", self.size, 1, _MOST)
        _check("steps", self.steps, 2, 50)


@dataclass(frozen=True, slots=True)
class PasskeySettings:
    """`words` of the text and `depth` of the number in it, 0 to 1. 0 words or depth -1: five values in turn."""

    size: int = 25
    seed: int = 0
    words: int = 0
    depth: float = -1.0

    def __post_init__(self) -> None:
        _check("size", self.size, 1, _MOST)
        if self.words:
            _check("words", self.words, 20, 1_000_000)
        if self.depth != -1.0 and not 0 <= self.depth <= 1:
            raise UsageError(f"depth is between 0 (the beginning) and 1 (the end), not {self.depth:g}")


@dataclass(frozen=True, slots=True)
class GeneratedSuite:
    """A suite with settings. `make` returns the problem of this number."""

    name: str
    summary: str
    settings: type[Any]
    make: Callable[[Any, int], SuiteProblem]


def generated_suite(kind: GeneratedSuite, given: Sequence[str], limit: int | None) -> Suite:
    """Returns the suite with settings such as "steps=4"; `limit` is its size if none is given. Raises UsageError."""
    settings = _configured(kind, given)
    if limit is not None and not any(each.startswith("size=") for each in given):
        settings = replace(settings, size=min(limit, _MOST))
    problems = tuple(kind.make(settings, number) for number in range(settings.size))
    # All but the size: more problems begin with the same ones.
    shown = {each.name: getattr(settings, each.name) for each in fields(settings) if each.name != "size"}
    source = f"dsr {kind.name} 1: {json.dumps(shown)}"
    return Suite(":".join([kind.name, *given]), problems, source=source)


def _configured(kind: GeneratedSuite, given: Sequence[str]) -> Any:
    known: dict[str, Any] = {each.name: type(each.default) for each in fields(kind.settings)}
    values: dict[str, Any] = {}
    for text in given:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or key not in known:
            raise UsageError(
                f"{kind.name} has no setting {text!r}",
                hint=f"it has {', '.join(f'{name}=' for name in known)} as in {kind.name}:seed=1",
            )
        try:
            values[key] = known[key](value)
        except ValueError:
            raise UsageError(f"{kind.name}: {key} takes a number, not {value!r}") from None
    return kind.settings(**values)


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(f"{name} is between {least} and {most}, not {value}")


class _Draw:
    """Draws from `random()` alone, which Python keeps the same in all versions ("Notes on Reproducibility")."""

    def __init__(self, *seed: object) -> None:
        self._random = random.Random(" ".join(map(str, seed)))

    def between(self, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))

    def one(self, items: Sequence[_Item]) -> _Item:
        return items[self.between(0, len(items) - 1)]


# --- errors ----------------------------------------------------------------------------------------------------------

ALL_RIGHT, WRONG_STEP = "all right", "wrong step"
ERROR_KINDS = frozenset((ALL_RIGHT, WRONG_STEP))
_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gina", "Hugo", "Ida", "Jon")
_THINGS = ("coins", "shells", "stamps", "cards", "marbles", "beads", "apples", "pencils")
_WORDS: Mapping[str, tuple[str, str]] = {
    "+": ("gets {n} more", "{a} + {n} = {b}. Now {who} has {b} {things}."),
    "-": ("gives away {n}", "{a} - {n} = {b}. Now {who} has {b} {things}."),
    "*": ("multiplies the collection by {n}", "{a} * {n} = {b}. Now {who} has {b} {things}."),
}


def error_problem(settings: ErrorSettings, number: int) -> SuiteProblem:
    """Returns a chain of sums with a solution. Every second one has a step with a wrong result.

    The steps after the wrong one are right for what they start from, as in ProcessBench (arXiv 2412.06559), where the
    earliest error counts. The answer is its index from 0, or -1.
    """
    draw = _Draw("errors", settings.seed, settings.steps, number)
    who, things, value = draw.one(_NAMES), draw.one(_THINGS), draw.between(5, 40)
    wrong = draw.between(0, settings.steps - 1) if number % 2 == 0 else -1
    told, steps = [f"{who} has {value} {things}."], []
    for index in range(settings.steps):
        sign, n = _operation(draw, value)
        right = {"+": value + n, "-": value - n, "*": value * n}[sign]
        shown = right + (draw.one((-10, -2, -1, 1, 2, 10) if right > 10 else (1, 2, 10)) if index == wrong else 0)
        text, step = _WORDS[sign]
        told.append(f"Then {who} {text.format(n=n)}.")
        steps.append(step.format(a=value, n=n, b=shown, who=who, things=things))
        value = shown
    question = f"{' '.join(told)} How many {things} does {who} have in the end?"
    task = ALL_RIGHT if wrong == -1 else WRONG_STEP
    asked = solution_question(question, steps)
    return SuiteProblem(made_id("errors", number, asked), asked, str(wrong), task, f"{settings.steps} steps")


def _operation(draw: _Draw, value: int) -> tuple[str, int]:
    """Returns a sign and a number; the result is neither negative nor much above a thousand."""
    sign = draw.one("++*" if value < 10 else "++--*" if value < 200 else "+--")
    if sign == "*":
        return sign, draw.between(2, 4)
    return sign, draw.between(2, min(value - 1, 60) if sign == "-" else 60)


def solution_question(problem: str, steps: Sequence[str]) -> str:
    """Returns the question of ProcessBench about a solution, with its steps as paragraphs that are numbered from 0."""
    tagged = "\n\n".join(f"<paragraph_{n}>\n{step}\n</paragraph_{n}>" for n, step in enumerate(steps))
    return prompts.read("find-error").format(problem=problem, solution=tagged)


# --- passkey ---------------------------------------------------------------------------------------------------------

# Landmark Attention (arXiv 2305.16300, section 4.2).
_FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_KEY = "The pass key is {key}. Remember it. {key} is the pass key."
_ASKED = "What is the pass key in the text? Answer with the number."
_LENGTHS, _DEPTHS = (200, 400, 800, 1600, 3200), (0.0, 0.25, 0.5, 0.75, 1.0)


def passkey_problem(settings: PasskeySettings, number: int) -> SuiteProblem:
    """Returns a text of filler with a number of five digits in it. A word is about 1.4 tokens in most vocabularies."""
    words = settings.words or _LENGTHS[number // len(_DEPTHS) % len(_LENGTHS)]
    depth = _DEPTHS[number % len(_DEPTHS)] if settings.depth == -1.0 else settings.depth
    key = str(_Draw("passkey", settings.seed, words, depth, number).between(10_000, 99_999))
    said = _KEY.format(key=key)
    lines = [_FILLER] * max(1, (words - len(said.split())) // len(_FILLER.split()))
    lines.insert(round(depth * len(lines)), said)
    text = "\n".join(lines)
    question = f"{text}\n\n{_ASKED}"
    return SuiteProblem(made_id("passkey", number, question), question, key, f"{words} words", f"depth {depth:g}")


GENERATED: Mapping[str, GeneratedSuite] = {
    kind.name: kind
    for kind in (
        GeneratedSuite("errors", "the first wrong step of a solution", ErrorSettings, error_problem),
        GeneratedSuite("passkey", "a number hidden in a long text", PasskeySettings, passkey_problem),
    )
}
