"""The rows of the table: strategies with their settings, and the source of their samples.

Many rows use the same samples. A `shared` row replays its strategy on the n samples of each problem. If it needs m
samples, it decides n // m times, each time with other samples, and its figures are means. An `own` row draws its own
samples, because they depend on earlier samples or on another prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dsr.suites.problem import SuiteProblem
from runtime.base.errors import UsageError
from runtime.base.types import Completion
from runtime.strategies import short_m
from runtime.strategies.strategy import STRATEGIES, Strategy, find, stored_name
from runtime.strategies.task import MOST_SAMPLES
from runtime.strategies.verdict import Verdict

SampleSource = Literal["greedy", "shared", "own", "coverage", "until-solved", "likelihood"]

GREEDY, COVERAGE, MONKEYS, LIKELIHOOD = "greedy", "pass", "monkeys", "likelihood"

# Settings of a strategy that is named without any, unless they are its defaults. {n}: samples, {half}: half of them.
_VARIANTS: Mapping[str, tuple[str, ...]] = {
    "vote": (
        "n={n}:stop=beta",
        "n={n}:stop=esc",
        "n={n}:stop=certain",
        "n={n}:stop=none:weights=probability",
        "n={n}:stop=none:weights=confidence",
        "n={n}:stop=none:weights=certainty",
    ),
    "first-finish": ("n={n}",),
    "short-m": ("n={n}",),
    "deepconf": ("n={n}:warmup={half}",),
    "no-think-vote": ("n={n}",),
    "budget": (
        "extensions=1",
        "extensions=2",
        *(f"tokens={tokens}:extensions=0" for tokens in (16, 32, 64, 128, 256, 512)),
    ),
}

# The strategies that share samples, and a single answer at temperature 0.
DEFAULT_STRATEGIES = (GREEDY, "direct", "vote", "first-finish", "short-m", "deepconf", MONKEYS, COVERAGE)


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """One row of the table. `name`: the strategy's name. `size`: samples of a decision.

    `size` is 0 if the strategy draws its own samples. `strategy` is None for rows such as pass@k. `first`: it is used
    only for so many problems; None for all. `file`: the name of its samples, "" for its label.
    """

    label: str
    name: str
    source: SampleSource
    size: int
    strategy: Strategy | None = None
    first: int | None = None
    file: str = ""

    def of(self, problems: Sequence[SuiteProblem]) -> Sequence[SuiteProblem]:
        """Returns the problems that the row is used for."""
        return problems if self.first is None else problems[: self.first]

    @property
    def oracle(self) -> bool:
        """Whether the decision uses the suite's answers, which a user's question does not have."""
        return self.source in ("coverage", "until-solved")

    def replay(self, completions: Sequence[Completion]) -> Verdict:
        """Returns the strategy's verdict on the samples 0, 1, ... of a question. For `shared` rows."""
        assert self.strategy is not None
        return self.strategy.replay(completions)


def strategy_rows(names: Sequence[str], samples: int) -> tuple[StrategyRow, ...]:
    """Returns the rows for names such as "vote" or "vote:n=4:stop=esc". "all" means all strategies.

    Raises UsageError for a name that is no strategy, and for a row that needs more samples than are drawn.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"{samples} samples for each problem: choose 1 to {MOST_SAMPLES}")
    found: dict[str, StrategyRow] = {}
    for name in [each.strip() for each in names if each.strip()] or DEFAULT_STRATEGIES:
        for part in all_strategies() if name == "all" else (name,):
            found.update((row.label, row) for row in _rows_of(part, samples) if row.label not in found)
    if not found:
        raise UsageError(f"{COVERAGE} needs several samples, and {samples} is drawn", hint="--samples 2")
    return tuple(found.values())


def alone_rows(rows: Sequence[StrategyRow], first: int) -> tuple[StrategyRow, ...]:
    """Returns rows in which each strategy draws its own samples, one question at a time, for the first problems.

    The seeds are those of the shared samples. Rows that use the suite's answers cannot be drawn alone.
    """
    direct = find("direct").configured()
    found = []
    for row in rows:
        if row.source == "own":
            found.append(replace(row, first=first))
        elif row.source == "greedy":
            found.append(replace(row, name=GREEDY, source="own", strategy=direct, first=first, file="alone greedy"))
        elif row.source == "shared":
            found.append(replace(row, source="own", size=0, first=first, file=f"alone {row.label}"))
    return tuple(found)


# How a choice is scored by its likelihood: by its letter; by its text; by its text per byte, as in the "acc_norm" of
# lm-evaluation-harness, so that long choices are not at a disadvantage.
CHOICE_RULES = ("letter", "text", "text per byte")


def likelihood_rows() -> tuple[StrategyRow, ...]:
    """Returns the rows of questions with choices, which are scored and not answered."""
    return tuple(StrategyRow(f"choice by {rule}", LIKELIHOOD, "likelihood", 0) for rule in CHOICE_RULES)


def short_label(label: str) -> str:
    """Returns 'vote 8 beta' for 'vote n=8 stop=beta', without settings that are none or 0."""
    words = []
    for word in label.removesuffix(" (oracle)").split():
        name, _, value = word.partition("=")
        if value not in ("none", "0"):
            words.append(value if value and name in ("n", "stop", "weights") else word.replace("=", " "))
    return " ".join(words)


def all_strategies() -> tuple[str, ...]:
    """Returns the names that "all" stands for."""
    return (GREEDY, *(stored_name(name) for name, kind in STRATEGIES.items() if not kind.long), COVERAGE)


def vote_sizes(samples: int) -> tuple[int, ...]:
    """Returns 1, 2, 4, ... and the number of samples itself."""
    return tuple(sorted({2**power for power in range(samples.bit_length())} | {samples}))


def _rows_of(text: str, samples: int) -> list[StrategyRow]:
    name, *given = text.split(":")
    name = stored_name(name)
    if name in (GREEDY, COVERAGE) and given:
        raise UsageError(f"{name} has no settings")
    if name == GREEDY:
        return [StrategyRow(GREEDY, "direct", "greedy", 1)]
    if name == COVERAGE:
        return [StrategyRow(f"pass@{k} (oracle)", COVERAGE, "coverage", k) for k in vote_sizes(samples) if k > 1]
    if name == MONKEYS:
        if any(not setting.startswith("n=") for setting in given):
            raise UsageError(
                "repeated-sampling: a bench uses the suite's answers; set n only", hint="repeated-sampling:n=4"
            )
        size = _size(find(name).configured(given, n=samples), samples)
        return [StrategyRow(f"monkeys n={size} (oracle)", name, "until-solved", size)]
    if name not in STRATEGIES:
        raise UsageError(
            f"there is no strategy {name!r}", hint=f"one of {', '.join((GREEDY, *STRATEGIES, COVERAGE))}, or all"
        )
    if given:
        return [_row(find(name).configured(given), samples)]
    variants = [variant.format(n=samples, half=(samples + 1) // 2) for variant in _VARIANTS.get(name, ("",))]
    if name == "vote":
        # All other rows are compared with the curve of plain votes.
        variants = [f"n={size}:stop=none" for size in vote_sizes(samples) if size > 1] + variants
    if name == "short-m" and samples < short_m.ShortMSettings().m:
        variants = [f"n={samples}:m={samples}"]
    kind = find(name)
    return [_row(kind.configured([part for part in variant.split(":") if part]), samples) for variant in variants]


def _row(strategy: Strategy, samples: int) -> StrategyRow:
    if not strategy.replayable:
        return StrategyRow(str(strategy), strategy.kind.name, "own", 0, strategy)
    return StrategyRow(str(strategy), strategy.kind.name, "shared", _size(strategy, samples), strategy)


def _size(strategy: Strategy, samples: int) -> int:
    size = int(getattr(strategy.settings, "n", 1))
    if size > samples:
        raise UsageError(f"{strategy} needs {size} samples, and {samples} are drawn", hint=f"--samples {size}")
    return size
