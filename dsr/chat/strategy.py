"""The strategy that the options of `dsr chat` choose, and the list of all strategies."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.base.errors import UsageError
from runtime.strategies.strategy import Strategy
from runtime.strategies.table import STRATEGIES, find

NAME_WIDTH = max(map(len, STRATEGIES))


def strategy_of(vote: int | None, name: str | None, settings: Sequence[str]) -> Strategy | None:
    """The strategy of `--vote N`, `--strategy NAME` and `--set KEY=VALUE`; None without one. Raises UsageError."""
    if vote is not None:
        if name not in (None, "vote"):
            raise UsageError(
                f"--vote {vote} means --strategy vote, and --strategy {name} is another", hint="name one of them"
            )
        return find("vote").configured(settings, n=vote)
    if name is None:
        if settings:
            raise UsageError("--set changes a strategy, and none was named", hint="dsr chat --list-strategies")
        return None
    return find(name).configured(settings)


def table() -> list[tuple[str, str, str]]:
    """Every strategy: name, summary, and its settings with their defaults."""
    return [(each.name, each.summary, " ".join(each.defaults())) for each in STRATEGIES.values()]
