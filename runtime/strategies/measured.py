"""What was measured of each strategy, from `measured.toml`, which `tests/strategy_figures.py` makes of docs/results.md.

`clause` says in a few words what a strategy gained. `nearest` finds the measurement that tells most about a model.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from runtime.base.types import counted

GREEDY, ONE = "greedy", "direct"
_WITHIN = 10.0  # a model ten times as large may behave differently


@dataclass(frozen=True, slots=True)
class Row:
    """A strategy with its settings, as "vote n=8 stop=beta": percent right, and tokens per question."""

    label: str
    right: float
    tokens: int

    @property
    def strategy(self) -> str:
        return self.label.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Measured:
    """One table: a model of so many `parameters` on a suite. `thinks`: whether it marks its thoughts."""

    model: str
    parameters: int
    thinks: bool
    suite: str
    questions: int
    rows: tuple[Row, ...]

    def row(self, label: str) -> Row | None:
        return next((each for each in self.rows if each.label == label), None)

    def best(self, strategy: str) -> Row | None:
        """The row of a strategy with the most right answers; of equal ones the cheapest."""
        return max(
            (each for each in self.rows if each.strategy == strategy),
            key=lambda each: (each.right, -each.tokens),
            default=None,
        )

    @property
    def plain(self) -> Row | None:
        """The better of a greedy answer and one sample: what costs a single sample."""
        found = [row for row in (self.row(GREEDY), self.row(ONE)) if row is not None]
        return max(found, key=lambda each: each.right, default=None)


def parse(text: str) -> tuple[Measured, ...]:
    """The tables of a text in TOML."""
    return tuple(
        Measured(
            model=table["model"],
            parameters=table["parameters"],
            thinks=table["thinks"],
            suite=table["suite"],
            questions=table["questions"],
            rows=tuple(Row(label, float(right), int(tokens)) for label, (right, tokens) in table["rows"].items()),
        )
        for table in tomllib.loads(text).get("table", ())
    )


@cache
def all_measured() -> tuple[Measured, ...]:
    return parse((resources.files("runtime.strategies") / "measured.toml").read_text(encoding="utf-8"))


def clause(strategy: str, measured: Sequence[Measured] | None = None) -> str:
    """What a strategy gained at best over a single answer, the better of greedy and drawn; "" for one sample.

    'up to +1.5 points over a greedy answer (nano, 200 questions)', 'never gained: 40.0 % right, a greedy answer 91.0
    (nano, 200 questions)'.
    """
    if strategy == ONE:
        return ""
    found = [
        (row.right - table.plain.right, row, table.plain, table)
        for table in (all_measured() if measured is None else measured)
        if (row := table.best(strategy)) is not None and table.plain is not None
    ]
    if not found:
        return "not measured yet"
    gain, row, plain, table = max(found, key=lambda each: each[0])
    what = "a greedy answer" if plain.label == GREEDY else "one sample"
    where = f"{table.model}, {counted(table.questions, 'question')}"
    if gain <= 0:
        return f"never gained: {row.right:.1f} % right, {what} {plain.right:.1f} ({where})"
    return f"up to {gain:+.1f} points over {what} ({where})"


def below_vote(strategy: str, measured: Sequence[Measured] | None = None) -> str:
    """'2.0 % right where a vote at most as costly had 92.5 (nano, 200 questions)', "" where it never fell below one."""
    lost = []
    for table in all_measured() if measured is None else measured:
        row = table.best(strategy)
        votes = [
            each for each in table.rows if each.strategy == "vote" and row is not None and each.tokens <= row.tokens
        ]
        best = max(votes, key=lambda each: each.right, default=None)
        if row is not None and best is not None and row.right < best.right:
            where = f"{table.model}, {counted(table.questions, 'question')}"
            lost.append((best.right - row.right, f"{row.right:.1f} % right", f"had {best.right:.1f} ({where})"))
    if not lost:
        return ""
    _, mine, theirs = max(lost)
    return f"{mine} where a vote of at most as many tokens {theirs}"


def nearest(parameters: int, thinks: bool, measured: Sequence[Measured] | None = None) -> Measured | None:
    """The table of the model of the nearest size, among those that think or do not, as this one. None if all are more
    than ten times larger or smaller."""
    tables = all_measured() if measured is None else measured
    if parameters <= 0:
        return None
    alike = [(abs(math.log(each.parameters / parameters)), each) for each in tables if each.thinks == thinks]
    distance, found = min(alike, key=lambda each: each[0], default=(math.inf, None))
    return found if distance <= math.log(_WITHIN) else None


def as_toml(tables: Sequence[Measured]) -> str:
    """The text that `parse` reads."""
    lines: list[str] = []
    for table in tables:
        lines += [
            "[[table]]",
            f'model = "{table.model}"',
            f"parameters = {table.parameters}",
            f"thinks = {str(table.thinks).lower()}",
            f'suite = "{table.suite}"',
            f"questions = {table.questions}",
            "[table.rows]",
            *(f'"{row.label}" = [{row.right}, {row.tokens}]' for row in table.rows),
            "",
        ]
    return "\n".join(lines)
