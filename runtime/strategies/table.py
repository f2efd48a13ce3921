"""Every strategy by name."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.base.errors import UsageError
from runtime.strategies import (
    auto,
    budget,
    deepconf,
    direct,
    entropy,
    first_finish,
    no_think_vote,
    phi,
    repeated_sampling,
    rounds,
    short_m,
    tree,
    verify,
    vote,
)
from runtime.strategies.strategy import StrategyKind, similar

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
    ),
    StrategyKind("phi", "each step chosen by looking ahead", phi.PhiSettings, phi.run, draws="in stages"),
    StrategyKind("tree", "thoughts that branch and are judged", tree.TreeSettings, tree.run, draws="in stages"),
    StrategyKind(
        "verify", "a solution whose steps are checked in rounds", verify.VerifySettings, verify.run, draws="in stages"
    ),
    StrategyKind("auto", "chosen by question, model and budget", auto.AutoSettings, auto.run),
)
STRATEGIES: Mapping[str, StrategyKind] = {kind.name: kind for kind in _KINDS}
_ALIASES: Mapping[str, str] = {kind.stored_name: kind.name for kind in _KINDS if kind.stored_name}


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
