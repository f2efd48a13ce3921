"""What a bench compares: strategies with their settings, and where the samples of each come from.

The same draws serve many lines of the table. `shared` lines replay their strategy on the n samples of each problem: a
line that needs m of n is decided n // m times, on samples of its own each time, and its figures are means over those.
`own` lines draw for themselves, because what they draw depends on what they have seen or on another prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.base.errors import UsageError
from runtime.base.types import Completion
from runtime.strategies import short_m
from runtime.strategies.strategy import STRATEGIES, Strategy, find, stored_name
from runtime.strategies.task import MOST_SAMPLES
from runtime.strategies.verdict import Verdict

Source = Literal["greedy", "shared", "own", "coverage", "until-solved"]

GREEDY, COVERAGE, MONKEYS = "greedy", "pass", "monkeys"

# What a bare name stands for, where that is not the strategy's defaults. {n} is the number of samples, {half} its half.
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
    "budget": ("extensions=1", "extensions=2"),
}

# The lines that need nothing but the shared draws, and what a single answer at temperature 0 is worth.
USUAL = (GREEDY, "direct", "vote", "first-finish", "short-m", "deepconf", MONKEYS, COVERAGE)


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """One row of the table. `size`: samples of a decision, 0 if the strategy draws its own.

    `oracle` says that the key of the suite took part in the decision, as no user's question has one.
    """

    label: str
    strategy: str
    source: Source
    size: int
    chosen: Strategy | None = None

    @property
    def oracle(self) -> bool:
        return self.source in ("coverage", "until-solved")

    def replayed(self, completions: Sequence[Completion]) -> Verdict:
        """What its strategy makes of the samples 0, 1, ... of a question; for `shared` lines."""
        assert self.chosen is not None
        return self.chosen.replay(completions)


def strategy_rows(asked: Sequence[str], samples: int) -> tuple[StrategyRow, ...]:
    """The lines of the table, for names such as "vote" or "vote:n=4:stop=esc"; "all" are all strategies.

    Raises UsageError for what is no strategy, and for a line that needs more samples than are drawn.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"between 1 and {MOST_SAMPLES} samples can be drawn for a problem, not {samples}")
    found: dict[str, StrategyRow] = {}
    for name in [each.strip() for each in asked if each.strip()] or USUAL:
        for part in every() if name == "all" else (name,):
            found.update((line.label, line) for line in _lines_of(part, samples) if line.label not in found)
    if not found:
        raise UsageError(f"{COVERAGE} compares several samples, and {samples} is drawn", hint="--samples 2")
    return tuple(found.values())


def every() -> tuple[str, ...]:
    """What "all" stands for."""
    return (GREEDY, *map(stored_name, STRATEGIES), COVERAGE)


def counts(samples: int) -> tuple[int, ...]:
    """1, 2, 4, ... and the number of samples itself."""
    return tuple(sorted({2**power for power in range(samples.bit_length())} | {samples}))


def _lines_of(text: str, samples: int) -> list[StrategyRow]:
    name, *given = text.split(":")
    name = stored_name(name)
    if name in (GREEDY, COVERAGE) and given:
        raise UsageError(f"{name} has no settings")
    if name == GREEDY:
        return [StrategyRow(GREEDY, "direct", "greedy", 1)]
    if name == COVERAGE:
        return [StrategyRow(f"pass@{k} (oracle)", COVERAGE, "coverage", k) for k in counts(samples) if k > 1]
    if name == MONKEYS:
        if any(not setting.startswith("n=") for setting in given):
            raise UsageError("monkeys: a bench checks by the key of the suite", hint="as in monkeys:n=4")
        size = _size(find(name).configured(given, n=samples), samples)
        return [StrategyRow(f"monkeys n={size} (oracle)", name, "until-solved", size)]
    if name not in STRATEGIES:
        raise UsageError(f"there is no strategy {name!r}", hint=f"one of {', '.join(every())}, or all")
    if given:
        return [_line(find(name).configured(given), samples)]
    variants = [variant.format(n=samples, half=(samples + 1) // 2) for variant in _VARIANTS.get(name, ("",))]
    if name == "vote":
        # The curve that all other rows are compared with.
        variants = [f"n={size}:stop=none" for size in counts(samples) if size > 1] + variants
    if name == "short-m" and samples < short_m.ShortMSettings().m:
        variants = [f"n={samples}:m={samples}"]
    kind = find(name)
    return [_line(kind.configured([part for part in variant.split(":") if part]), samples) for variant in variants]


def _line(strategy: Strategy, samples: int) -> StrategyRow:
    if not strategy.kind.replayable:
        return StrategyRow(str(strategy), strategy.kind.name, "own", 0, strategy)
    return StrategyRow(str(strategy), strategy.kind.name, "shared", _size(strategy, samples), strategy)


def _size(strategy: Strategy, samples: int) -> int:
    size = int(getattr(strategy.settings, "n", 1))
    if size > samples:
        raise UsageError(f"{strategy} needs {size} samples, and {samples} are drawn", hint=f"--samples {size}")
    return size
