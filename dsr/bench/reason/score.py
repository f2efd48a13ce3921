"""From decisions to a line of the table: means, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsr.bench.reason.judge import StrategyDecision
from dsr.bench.reason.rows import StrategyRow

_Z = 1.959963984540054  # 97.5 % of the normal distribution


@dataclass(frozen=True, slots=True)
class Score:
    """`accuracy`, `low` and `high` are shares. Tokens and seconds are means per question; `tokens_total` is for all
    questions once. `decisions` counts those the means are over."""

    line: StrategyRow
    problems: int
    decisions: int
    accuracy: float
    low: float
    high: float
    tokens: float
    tokens_total: int
    sequential: float
    seconds: float

    def json(self) -> dict[str, Any]:
        chosen = self.line.chosen
        return {
            "row": self.line.label,
            "strategy": self.line.strategy,
            "settings": dict(chosen.given) if chosen else {},
            "samples": self.line.size or None,
            "draws": self.line.source,
            "oracle": self.line.oracle,
            "problems": self.problems,
            "decisions": self.decisions,
            "accuracy": round(self.accuracy, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "tokens_mean": round(self.tokens, 3),
            "tokens_total": self.tokens_total,
            "sequential_mean": round(self.sequential, 3),
            "seconds_mean": round(self.seconds, 4),
        }


def score(line: StrategyRow, decisions: Sequence[StrategyDecision]) -> Score | None:
    """The means over problems of the means over each problem's decisions; None without any."""
    by_problem: dict[str, list[StrategyDecision]] = {}
    for decision in decisions:
        by_problem.setdefault(decision.problem, []).append(decision)
    if not by_problem:
        return None
    groups = list(by_problem.values())
    shares = [_mean([each.correct for each in group]) for group in groups]
    low, high = interval(shares, len(decisions))
    tokens = [_mean([each.spent for each in group]) for group in groups]
    return Score(
        line=line,
        problems=len(groups),
        decisions=len(decisions),
        accuracy=_mean(shares),
        low=low,
        high=high,
        tokens=_mean(tokens),
        tokens_total=round(math.fsum(tokens)),
        sequential=_mean([_mean([each.sequential for each in group]) for group in groups]),
        seconds=_mean([_mean([each.seconds for each in group]) for group in groups]),
    )


def interval(shares: Sequence[float], decisions: int) -> tuple[float, float]:
    """The 95 % interval of the mean of what each problem scored, from 0 to 1, in so many decisions.

    Wilson's (1927), with the number of trials that would give this standard error. Where each problem was decided once
    that is the number of problems. Where it was decided several times, the standard error is that of the problems'
    means, since decisions about one problem resemble each other; the number then lies between problems and decisions.
    """
    count, mean = len(shares), _mean(shares)
    spread = math.fsum((share - mean) ** 2 for share in shares)
    # With shares of 0 and 1 alone, spread / count is mean * (1 - mean), and this is count.
    trials = mean * (1 - mean) * count / (spread / count) if spread else count
    return wilson(mean, min(max(trials, count), decisions))


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's interval for a share of `count` trials."""
    scale = 1 + _Z**2 / count
    middle = (share + _Z**2 / (2 * count)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
