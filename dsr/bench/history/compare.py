"""Compares two model files, or one file before and after: ratios of the figures that both have. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsr.bench.kit.table import Table, left, right
from dsr.bench.speed.tables import UNITS, value
from dsr.store.measurement import PREDICTED, Figure, Measurement, Parameter
from runtime.base.errors import UsageError
from runtime.base.types import counted

# 97.5 % quantiles of Student's t-distribution for 1, 2, ... degrees of freedom; for more, that of the normal one.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NORMAL = 1.96


@dataclass(frozen=True, slots=True)
class Ratio:
    """The second measurement's figure divided by the first's.

    `low` and `high`: the 95 % interval, None if one figure was measured only once. It takes the logarithms of two
    independent means as normal.
    """

    kind: str
    test: str
    figure: str
    first: Figure
    second: Figure
    ratio: float
    low: float | None
    high: float | None

    @property
    def differs(self) -> bool | None:
        """Whether 1 is outside the interval; None without an interval."""
        return None if self.low is None or self.high is None else not self.low <= 1 <= self.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two models. `alone`: tests that only one of them has.

    `differences`: different conditions, as text; empty unless the comparison was forced.
    """

    first: str
    second: str
    ratios: tuple[Ratio, ...]
    alone: tuple[str, ...]
    differences: tuple[str, ...]


def compare(first: Sequence[Measurement], second: Sequence[Measurement], *, force: bool = False) -> Comparison:
    """Compares two models' measurements by kind, test and parameters. Of equal ones, the last counts.

    If two models have a test only with different parameters, it is compared anyway. Raises UsageError if they have no
    test in common, and, without `force`, if conditions or parameters differ.
    """
    one, other = _by_test(first), _by_test(second)
    pairs = [pair for key in one if key in other for pair in _pairs(one[key], other[key])]
    if not pairs:
        raise UsageError(
            "the two have no test in common",
            hint="measure both with one command: dsr bench speed MODEL MODEL",
        )
    differences = tuple(dict.fromkeys(words for pair in pairs for words in _differences(*pair)))
    if differences and not force:
        raise UsageError(
            f"measured under different conditions: {'; '.join(differences)}",
            hint="measure both with one command, or use --force to compare them anyway",
        )
    names = _names([pair[0] for pair in pairs])
    return Comparison(
        first=first[-1].model,
        second=second[-1].model,
        ratios=tuple(ratio for pair, name in zip(pairs, names, strict=True) for ratio in ratios(*pair, name)),
        alone=tuple(
            f"{kind} {test}" for kind, test in {**one, **other} if (kind, test) not in one or (kind, test) not in other
        ),
        differences=differences,
    )


_Varied = dict[frozenset[tuple[str, Parameter]], Measurement]


def _by_test(rows: Sequence[Measurement]) -> Mapping[tuple[str, str], _Varied]:
    """Returns the measurements by kind and test, then by parameters."""
    found: dict[tuple[str, str], _Varied] = {}
    for row in rows:
        same = found.setdefault((row.kind, row.test), {})
        key = frozenset(row.parameters.items())
        same.pop(key, None)
        same[key] = row
    return found


def _pairs(one: _Varied, other: _Varied) -> list[tuple[Measurement, Measurement]]:
    alike = [(row, other[key]) for key, row in one.items() if key in other]
    return alike or [(list(one.values())[-1], list(other.values())[-1])]


def _names(rows: Sequence[Measurement]) -> list[str]:
    """Returns the names of tests, with the parameters in which rows of one test differ."""
    found = []
    for row in rows:
        alike = [each for each in rows if (each.kind, each.test) == (row.kind, row.test)]
        varied = [name for name in row.parameters if len({each.parameters.get(name) for each in alike}) > 1]
        found.append(" ".join([row.test, *(f"{name}={row.parameters[name]}" for name in varied)]))
    return found


def _differences(one: Measurement, other: Measurement) -> list[str]:
    notes = [
        f"{name} {getattr(one.conditions, name)} and {getattr(other.conditions, name)}"
        for name in one.conditions.differences(other.conditions)
    ]
    for name in sorted({*one.parameters, *other.parameters}):
        before, after = one.parameters.get(name), other.parameters.get(name)
        if before != after:
            notes.append(f"{name} {before} and {after}")
    return notes


def ratios(one: Measurement, other: Measurement, test: str = "") -> list[Ratio]:
    """Returns the ratios of all figures that both measured. Leaves out predictions. `test`: name of the pair."""
    found = []
    for name, first in one.figures.items():
        second = other.figures.get(name)
        if second is None or first.mean <= 0 or second.mean <= 0 or name.startswith(PREDICTED):
            continue
        ratio = second.mean / first.mean
        spread = _spread(first, second)
        low, high = (None, None) if spread is None else (ratio / math.exp(spread), ratio * math.exp(spread))
        found.append(Ratio(one.kind, test or one.test, name, first, second, ratio, low, high))
    return found


def _spread(first: Figure, second: Figure) -> float | None:
    """Returns half the width of the interval of the ratio's logarithm; None without standard errors."""
    if first.error is None or second.error is None:
        return None
    error = math.hypot(first.error / first.mean, second.error / second.mean)
    freedom = first.count + second.count - 2
    return error * (_STUDENT[freedom - 1] if 0 < freedom <= len(_STUDENT) else _NORMAL)


def table(comparison: Comparison) -> Table:
    columns = (*left("test"), *right("A", "B"), *left(""), *right("B / A", "95 %"), *left(""))
    return Table.of(columns, map(_cells, comparison.ratios))


def _cells(ratio: Ratio) -> tuple[str, ...]:
    return (
        ratio.test,
        value(ratio.first, ratio.figure),
        value(ratio.second, ratio.figure),
        UNITS.get(ratio.figure, ratio.figure.replace("_", " ")),
        f"{ratio.ratio:.3f}",
        f"{ratio.low:.3f}-{ratio.high:.3f}" if ratio.low is not None and ratio.high is not None else "",
        "differs" if ratio.differs else "",
    )


def summary(comparison: Comparison) -> str:
    """Returns how many figures differ by more than their 95 % interval, as text."""
    known = [ratio for ratio in comparison.ratios if ratio.differs is not None]
    if not known:
        return "no intervals: each test was measured once"
    differing = sum(bool(ratio.differs) for ratio in known)
    return f"different beyond the 95 % interval: {differing} of {counted(len(known), 'figure')}"
