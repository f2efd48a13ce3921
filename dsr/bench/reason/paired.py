"""Compares strategies on the same questions: who gains, who loses, and where nobody can tell.

Differences between two strategies on one question are paired: hard questions are hard for both. The interval of their
mean comes from a bootstrap over questions (Efron and Tibshirani 1993, chapter 13; for pairs of language models: Koehn,
"Statistical Significance Tests for Machine Translation Evaluation", 2004). It needs no normal distribution, and takes
rows that decide a question several times. One row in twenty seems to differ when none does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from dsr.bench.reason.judge import Score, StrategyDecision
from dsr.bench.reason.rows import GREEDY

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    IntArray = npt.NDArray[np.int32]

_RESAMPLES = 2000  # the ends of a 95 % interval then vary by about a twentieth of its width
_SEED = 0
ONE_SAMPLE = "direct"

Outcome = Literal["gains", "loses", "cannot tell"]


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The accuracy of a row minus that of the `reference`, as shares, with its 95 % interval."""

    reference: str
    mean: float
    low: float
    high: float

    @property
    def outcome(self) -> Outcome:
        return "gains" if self.low > 0 else "loses" if self.high < 0 else "cannot tell"

    def json(self) -> dict[str, Any]:
        numbers = {"difference": self.mean, "low": self.low, "high": self.high}
        rounded = {name: round(value, 6) for name, value in numbers.items()}
        return {"row": self.reference, **rounded, "outcome": self.outcome}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row against the references: one sample, the greedy answer, and the best plain vote."""

    row: str
    problems: int
    differences: tuple[PairedDifference, ...]

    def against(self, reference: str) -> PairedDifference | None:
        return next((each for each in self.differences if each.reference == reference), None)

    def json(self) -> dict[str, Any]:
        return {"row": self.row, "problems": self.problems, "references": [each.json() for each in self.differences]}


def compare_rows(scores: Sequence[Score], decisions: Sequence[StrategyDecision]) -> tuple[Comparison, ...]:
    """Returns each row that is no oracle against the references in the table, on the questions that both decided."""
    shares = _shares(decisions)
    references = [name for name in (ONE_SAMPLE, GREEDY, best_vote(scores)) if name in shares]
    made = []
    for score in scores:
        label = score.row.label
        others = [name for name in references if name != label]
        if score.row.oracle or not others:
            continue
        differences = tuple(_difference(shares[label], shares[name], name) for name in others)
        made.append(Comparison(label, score.problems, differences))
    return tuple(made)


def best_vote(scores: Sequence[Score]) -> str:
    """Returns the label of the plain vote with the most right answers; of equals, the cheapest; "" without any."""
    plain = [each for each in scores if each.row.name == "vote" and set(_settings(each)) <= {"n", "stop"}]
    unstopped = [each for each in plain if _settings(each).get("stop") == "none"]
    best = max(unstopped or plain, key=lambda each: (each.accuracy, -each.tokens), default=None)
    return best.row.label if best else ""


def _settings(score: Score) -> Mapping[str, str]:
    return dict(score.row.strategy.given) if score.row.strategy else {}


def _shares(decisions: Sequence[StrategyDecision]) -> dict[str, dict[str, float]]:
    """Returns, by row and problem, the share of right decisions."""
    found: dict[str, dict[str, list[float]]] = {}
    for each in decisions:
        found.setdefault(each.row, {}).setdefault(each.problem, []).append(each.correct)
    return {row: {name: sum(each) / len(each) for name, each in problems.items()} for row, problems in found.items()}


def _difference(row: Mapping[str, float], reference: Mapping[str, float], name: str) -> PairedDifference:
    pairs = [share - reference[problem] for problem, share in row.items() if problem in reference]
    low, high = paired_interval(pairs)
    return PairedDifference(name, math.fsum(pairs) / len(pairs) if pairs else 0.0, low, high)


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of paired differences, each -1 to 1: percentiles of a bootstrap.

    The same differences give the same interval. Without any difference, or without a pair, nobody can tell: the
    interval is that of a count of zero, by the rule of three (3 / n).
    """
    count = len(differences)
    if not any(differences):
        bound = min(1.0, 3 / count) if count else 1.0
        return -bound, bound
    import numpy as np

    means = np.sort(np.asarray(differences)[_resamples(count)].mean(axis=1))
    return float(means[int(0.025 * _RESAMPLES)]), float(means[int(0.975 * _RESAMPLES) - 1])


@cache
def _resamples(count: int) -> IntArray:
    """Returns the indices of the resamples, one row each. All rows of a table use the same."""
    import numpy as np

    draw = random.Random(_SEED).random  # the same on every system
    return np.array([int(draw() * count) for _ in range(_RESAMPLES * count)], dtype=np.int32).reshape(_RESAMPLES, count)
