"""Which strategy answers, and with which settings: as a user writes it, and as it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.base.errors import UsageError
from runtime.strategies import STRATEGIES, Strategy, find

# Samples that a strategy without a setting `n` may want to draw together, and that a conversation can draw where no
# strategy was named: one may be chosen later.
USUAL_SAMPLES = 8
NAME_WIDTH = max(map(len, STRATEGIES))


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy with its settings. `given` are those a user named."""

    strategy: Strategy
    settings: Any
    given: tuple[tuple[str, str], ...] = ()

    @property
    def samples(self) -> int:
        """How many samples it draws at once at most, as far as its settings tell."""
        return 1 if self.strategy.draws in ("one", "in turn") else self.voters or USUAL_SAMPLES

    @property
    def voters(self) -> int:
        """How many samples answer the question together at most; 0 where they do not, or nobody can tell yet."""
        n = getattr(self.settings, "n", None) if self.strategy.draws == "together" else None
        return n if isinstance(n, int) else 0

    @property
    def plain(self) -> bool:
        """Whether the text of its only sample is the answer, so that it can be shown while it is drawn."""
        return self.strategy.draws == "one"

    def __str__(self) -> str:
        return " ".join([self.strategy.name, *(f"{key}={value}" for key, value in self.given)])


def chosen(name: str, settings: Sequence[str] = ()) -> Choice:
    """The strategy `name` with settings such as "n=8"; a later one wins. Raises UsageError."""
    strategy = find(name)
    given: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"a setting is written KEY=VALUE, not {setting!r}", hint=f"as in {_example(strategy)}")
        given[key.strip()] = value.strip()
    return Choice(strategy, strategy.chosen(given), tuple(given.items()))


def asked_for(vote: int | None, name: str | None, settings: Sequence[str]) -> Choice | None:
    """What `--vote N`, `--strategy NAME` and `--set KEY=VALUE` say together. Raises UsageError."""
    if vote is not None:
        if name not in (None, "vote"):
            raise UsageError(
                f"--vote {vote} means --strategy vote, and --strategy {name} is another", hint="name one of them"
            )
        return chosen("vote", [f"n={vote}", *settings])
    if name is None:
        if settings:
            raise UsageError("--set changes a strategy, and none was named", hint="dsr chat --list-strategies")
        return None
    return chosen(name, settings)


def table() -> list[tuple[str, str, str]]:
    """Every strategy: name, summary, and its settings with their defaults."""
    return [(each.name, each.summary, " ".join(_defaults(each))) for each in STRATEGIES.values()]


def _example(strategy: Strategy) -> str:
    return next(iter(_defaults(strategy)), "n=8")


def _defaults(strategy: Strategy) -> list[str]:
    return [f"{key}={_word(value)}" for key, value in strategy.defaults().items()]


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
