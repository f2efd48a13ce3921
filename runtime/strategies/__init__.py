"""How to spend more computation on one question. Each strategy is one module; the table names them all.

A strategy draws completions from the engine and judges them into a `Verdict`. Where judging is a function of the
completions alone, its module has it as `judge`, so that the same draws can be judged in several ways. `replay` tells
what a strategy would have decided and spent, had given draws been its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from runtime.base.errors import UsageError
from runtime.base.events import Event
from runtime.base.types import Completion
from runtime.strategies import (
    auto,
    budget,
    deepconf,
    direct,
    entropy,
    first_finish,
    monkeys,
    no_think_vote,
    phi,
    rounds,
    short_m,
    tree,
    verify,
    vote,
)
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Strategy:
    """`settings` is a frozen dataclass whose fields have defaults. `replay`: where the draws are ordinary samples.

    `draws`: one sample, whose text is the answer; answers to the same question, together or in turn; or in stages,
    where most samples answer other questions.
    """

    name: str
    summary: str
    settings: type[Any]
    run: Callable[[Task, Any], Generator[Event, None, Verdict]]
    replay: Callable[[Sequence[Completion], Any], Verdict] | None = None
    draws: Literal["one", "together", "in turn", "in stages"] = "together"

    def chosen(self, given: Mapping[str, str]) -> Any:
        """The settings with what was given as text, `{"n": "8"}`. Raises UsageError."""
        hints = get_type_hints(self.settings)
        values = {}
        for key, text in given.items():
            if key not in hints:
                known = ", ".join(hints) or "none"
                raise UsageError(f"{self.name} has no setting {key!r}", hint=f"it has {known}{_like(key, hints)}")
            values[key] = _value(f"{self.name}: {key}", hints[key], text)
        return self.settings(**values)

    def defaults(self) -> dict[str, Any]:
        """Every setting with its default."""
        return {field.name: field.default for field in fields(self.settings) if field.default is not MISSING}


STRATEGIES: Mapping[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("direct", "one sample, taken as it comes", direct.Settings, direct.run, direct.replay, draws="one"),
        Strategy(
            "vote", "the answer most samples agree on, stopped when it is clear", vote.Settings, vote.run, vote.replay
        ),
        Strategy(
            "first-finish",
            "the first sample that finishes",
            first_finish.Settings,
            first_finish.run,
            first_finish.replay,
        ),
        Strategy("short-m", "the majority of the first thoughts", short_m.Settings, short_m.run, short_m.replay),
        Strategy(
            "no-think-vote", "samples without thought, the surest answer", no_think_vote.Settings, no_think_vote.run
        ),
        Strategy(
            "deepconf", "a vote in which unsure samples are cut", deepconf.Settings, deepconf.run, deepconf.replay
        ),
        Strategy("budget", "one sample with a short or a prolonged thought", budget.Settings, budget.run, draws="one"),
        Strategy("rounds", "answer again, knowing only the last answer", rounds.Settings, rounds.run, draws="in turn"),
        Strategy("em", "one sample, sharpened where the model is unsure", entropy.Settings, entropy.run, draws="one"),
        Strategy("monkeys", "samples until one passes a check of yours", monkeys.Settings, monkeys.run),
        Strategy("phi", "each step chosen by looking ahead", phi.Settings, phi.run, draws="in stages"),
        Strategy("tree", "thoughts that branch and are judged", tree.Settings, tree.run, draws="in stages"),
        Strategy(
            "verify", "a solution whose steps are checked in rounds", verify.Settings, verify.run, draws="in stages"
        ),
        Strategy("auto", "chosen by question, model and budget", auto.Settings, auto.run),
    )
}


def find(name: str) -> Strategy:
    """Raises UsageError with what may have been meant."""
    strategy = STRATEGIES.get(name)
    if strategy is None:
        raise UsageError(
            f"there is no strategy {name!r}", hint=f"one of {', '.join(STRATEGIES)}{_like(name, STRATEGIES)}"
        )
    return strategy


def _like(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _value(what: str, kind: Any, text: str) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise UsageError(f"{what} is one of {', '.join(get_args(kind))}, not {text!r}")
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise UsageError(f"{what} is true or false, not {text!r}")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{what} takes a number, not {text!r}") from None
