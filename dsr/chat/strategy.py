"""The strategy that the options of `dsr chat` choose, notes on it, and the list of all strategies."""

from __future__ import annotations

from collections.abc import Sequence

from dsr.loading.context import MIN_SLOT_TOKENS
from dsr.ui.console import Console
from runtime.base.errors import UsageError
from runtime.base.types import SamplingParams
from runtime.engine.backend import Backend
from runtime.strategies.strategy import STRATEGIES, Strategy, find

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


def strategy_notes(strategy: Strategy | None, backend: Backend, params: SamplingParams) -> list[str]:
    """Lines for a person before the samples are drawn."""
    if strategy is None or strategy.voters < 2:
        return []
    notes = []
    if backend.slots < strategy.voters:
        full = backend.context // MIN_SLOT_TOKENS <= backend.slots
        why = f": memory for {backend.context} tokens of context" if full else ""
        notes.append(f"{strategy.voters} samples in waves of {backend.slots}{why}")
    if params.temperature == 0:
        notes.append("at temperature 0 all samples are the same; try --temp 0.6")
    return notes


def table() -> list[tuple[str, str, str]]:
    """Every strategy: name, summary, and its settings with their defaults."""
    return [(each.name, each.summary, " ".join(each.defaults())) for each in STRATEGIES.values()]


def show_strategies(console: Console) -> None:
    """Show each strategy: its name, its summary, and its settings."""
    for name, summary, known in table():
        console.data(f"{name:{NAME_WIDTH}} {summary}")
        if known:
            console.data(f"{'':{NAME_WIDTH}} {known}", style="dim")
    rows = [{"name": name, "summary": summary, "settings": known} for name, summary, known in table()]
    console.json("dsr.strategies/1", {"strategies": rows})
