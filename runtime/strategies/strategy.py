"""Strategies: how to draw samples of one question and decide between them. `STRATEGIES` lists all by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from runtime.base.errors import UsageError
from runtime.base.events import Event, value_of
from runtime.base.types import Completion
from runtime.strategies import (
    auto,
    bon,
    bounded,
    budget,
    deepconf,
    direct,
    entropy,
    evidence,
    first_finish,
    no_think_vote,
    phi,
    repeated_sampling,
    rounds,
    short_m,
    soft,
    tree,
    value_guided,
    verify,
    vote,
)
from runtime.strategies.bounds import Budget
from runtime.strategies.replay import Replay
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict

# The setting of every strategy.
BUDGET = "budget"
# Samples that a strategy without a setting `n` may draw together at most.
USUAL_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class StrategyKind:
    """An entry of the table. `settings` is a frozen dataclass whose fields have defaults.

    `draws`: "one" sample, whose text is the answer; several answers to the same question, "together" or "in turn"; or
    "in stages", where most samples answer other questions. `replayable`: the samples are ordinary ones, so the decision
    can be repeated on recorded samples. `stored_name` is the name in JSON and in stored rows where it differs from
    `name`; users may type it too, and the `alias`. `runs_commands`: a setting is a command for the shell, so only the
    user of this machine may choose it. `local`: other settings that name files or commands of this machine. `long`: it
    reads `Task.documents` in parts, so that they may be longer than the context.
    """

    name: str
    summary: str
    settings: type[Any]
    run: Callable[[Task, Any], Generator[Event, None, Verdict]]
    draws: Literal["one", "together", "in turn", "in stages"] = "together"
    replayable: bool = False
    stored_name: str = ""
    alias: str = ""
    runs_commands: bool = False
    local: tuple[str, ...] = ()
    long: bool = False

    def configured(self, settings: Sequence[str] = (), **values: Any) -> Strategy:
        """The strategy with the `values` of its settings, then with texts such as "n=8"; a later one wins.

        Every strategy also takes `budget`; see `Budget.parse`. Raises UsageError.
        """
        budget: Budget | None = None
        shown = {key: _shown(value) for key, value in values.items()}
        hints = get_type_hints(self.settings)
        for setting in settings:
            key, equals, text = (part.strip() for part in setting.partition("="))
            if not equals or not setting.partition("=")[0]:
                raise UsageError(f"a setting is written KEY=VALUE, not {setting!r}", hint=f"as in {self._example()}")
            if key == BUDGET:
                shown[key], budget = text, Budget.parse(text)
                continue
            if key not in hints:
                known = [*hints, BUDGET]
                listed = ", ".join(known)
                raise UsageError(f"{self.name} has no setting {key!r}", hint=f"it has {listed}{similar(key, known)}")
            shown[key], values[key] = text, _value(f"{self.name}: {key}", hints[key], text)
        return Strategy(self, self.settings(**values), tuple(shown.items()), budget)

    def defaults(self) -> list[str]:
        """Every setting with its default, as in "n=8"."""
        known = [field for field in fields(self.settings) if field.default is not MISSING]
        return [f"{field.name}={_shown(field.default)}" for field in known]

    def _example(self) -> str:
        return next(iter(self.defaults()), "n=8")


@dataclass(frozen=True, slots=True)
class Strategy:
    """A kind of strategy with its settings, and the most that it may draw. `given` are the settings as text."""

    kind: StrategyKind
    settings: Any
    given: tuple[tuple[str, str], ...] = ()
    budget: Budget | None = None

    def run(self, task: Task) -> Generator[Event, None, Verdict]:
        if self.budget is None:
            return self.kind.run(task, self.settings)
        staged = self.kind.draws == "in stages"
        return bounded.run(task, self.budget, lambda limited: self.kind.run(limited, self.settings), staged=staged)

    def replay(self, completions: Sequence[Completion]) -> Verdict:
        """The verdict, had the samples 0, 1, ... come out as these completions. Only for a `replayable` kind."""
        return value_of(self.run(Replay(completions).task()))

    @property
    def samples(self) -> int:
        """The most samples that it draws at once, as far as its settings tell."""
        return 1 if self.kind.draws in ("one", "in turn") else self.voters or USUAL_SAMPLES

    @property
    def voters(self) -> int:
        """The most samples that answer the question together; 0 where they do not, or where that is not known yet."""
        n = getattr(self.settings, "n", None) if self.kind.draws == "together" else None
        return n if isinstance(n, int) else 0

    @property
    def replayable(self) -> bool:
        """Whether recorded samples tell its decision: not within a budget, and not with a judge."""
        return self.kind.replayable and self.budget is None and getattr(self.settings, "judge", "none") == "none"

    @property
    def plain(self) -> bool:
        """Whether the text of its only sample is the answer, so that it can be shown while it is drawn."""
        return self.kind.draws == "one"

    def __str__(self) -> str:
        return " ".join([self.kind.name, *(f"{key}={value}" for key, value in self.given)])


def similar(name: str, known: Iterable[str]) -> str:
    """The end of a hint for a name that does not exist: "; did you mean vote?"."""
    close = difflib.get_close_matches(name, list(known), 1)
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


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_KINDS = (
    StrategyKind(
        "direct", "one sample, taken as it comes", direct.DirectSettings, direct.run, draws="one", replayable=True
    ),
    StrategyKind(
        "vote",
        "the answer most samples agree on, stopped when it is clear",
        vote.VoteSettings,
        vote.run,
        replayable=True,
    ),
    StrategyKind(
        "first-finish",
        "the first sample that finishes",
        first_finish.FirstFinishSettings,
        first_finish.run,
        replayable=True,
    ),
    StrategyKind("short-m", "the majority of the first thoughts", short_m.ShortMSettings, short_m.run, replayable=True),
    StrategyKind(
        "no-think-vote",
        "samples without thought, the surest answer",
        no_think_vote.NoThinkVoteSettings,
        no_think_vote.run,
    ),
    StrategyKind(
        "deepconf",
        "a vote in which unsure samples are cut",
        deepconf.DeepConfSettings,
        deepconf.run,
        replayable=True,
    ),
    StrategyKind(
        "bon", "the sample that the model or a value head judges best", bon.BonSettings, bon.run, local=("head",)
    ),
    StrategyKind("soft", "of several texts the one nearest to the others", soft.SoftSettings, soft.run),
    StrategyKind(
        "budget", "one sample with a short or a prolonged thought", budget.BudgetSettings, budget.run, draws="one"
    ),
    StrategyKind(
        "rounds", "answer again, knowing only the last answer", rounds.RoundsSettings, rounds.run, draws="in turn"
    ),
    StrategyKind(
        "em", "one sample, sharpened where the model is unsure", entropy.EntropySettings, entropy.run, draws="one"
    ),
    StrategyKind(
        repeated_sampling.NAME,
        "samples until one passes a check of yours (alias: monkeys)",
        repeated_sampling.RepeatedSamplingSettings,
        repeated_sampling.run,
        stored_name="monkeys",
        runs_commands=True,
    ),
    StrategyKind("phi", "each step chosen by looking ahead", phi.PhiSettings, phi.run, draws="in stages"),
    StrategyKind(
        "tree",
        "thoughts that branch and are judged",
        tree.TreeSettings,
        tree.run,
        draws="in stages",
        local=("check",),
    ),
    StrategyKind(
        value_guided.NAME,
        "beams of blocks chosen by a value head, or by a proxy (alias: vgs)",
        value_guided.ValueGuidedSettings,
        value_guided.run,
        draws="in stages",
        alias="vgs",
        local=("head",),
    ),
    StrategyKind(
        "verify",
        "a solution whose steps are checked in rounds",
        verify.VerifySettings,
        verify.run,
        draws="in stages",
        local=("solution",),
    ),
    StrategyKind(
        "evidence",
        "an answer from the paragraphs of a long file that matter",
        evidence.EvidenceSettings,
        evidence.run,
        draws="in turn",
        long=True,
    ),
    StrategyKind("auto", "chosen by question, model and budget", auto.AutoSettings, auto.run),
)
STRATEGIES: Mapping[str, StrategyKind] = {kind.name: kind for kind in _KINDS}
_ALIASES: Mapping[str, str] = {other: kind.name for kind in _KINDS for other in (kind.stored_name, kind.alias) if other}


def find(name: str) -> StrategyKind:
    """The strategy of this name or alias. Raises UsageError with a similar name."""
    kind = STRATEGIES.get(_ALIASES.get(name, name))
    if kind is None:
        raise UsageError(
            f"there is no strategy {name!r}", hint=f"one of {', '.join(STRATEGIES)}{similar(name, STRATEGIES)}"
        )
    return kind


def stored_name(name: str) -> str:
    """The name of a strategy in JSON and in stored rows, which stays when the strategy is renamed."""
    kind = STRATEGIES.get(name)
    return kind.stored_name or kind.name if kind is not None else name
