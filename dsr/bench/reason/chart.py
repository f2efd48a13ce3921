"""Accuracy against tokens as a chart: a mark for each strategy."""

from __future__ import annotations

from collections.abc import Sequence

from dsr.bench.reason.bench import ReasonBench
from dsr.bench.reason.rows import short_label
from dsr.bench.reason.tables import title
from dsr.ui.charts.chart import Axis, Chart, Mark

_MANY = 12  # a chart with more marks takes the full width of a page
_LEAD = (
    "Up and to the left is better. Tokens: all samples of a question, including stopped samples. The bar is the 95 % "
    "interval."
)
_ORACLE = " Hollow: an oracle, which uses the suite's answers."


def chart(bench: ReasonBench) -> Chart:
    """Returns the chart with its marks in the order of the bench's table."""
    marks = [
        Mark(
            label=short_label(score.row.label),
            name=score.row.label,
            figures=(
                f"{score.tokens:.0f} tokens per question",
                f"{100 * score.accuracy:.1f} % ({100 * score.low:.0f} to {100 * score.high:.0f}) right",
            ),
            across=max(score.tokens, 1.0),
            up=100 * score.accuracy,
            low=100 * score.low,
            high=100 * score.high,
            hollow=score.row.oracle,
        )
        for score in bench.scores
    ]
    return strategies_chart(marks, title=title(bench))


def strategies_chart(
    marks: Sequence[Mark], *, title: str, lead: str = "", command: str = "", order: tuple[str, ...] = ()
) -> Chart:
    """Returns the chart of these strategies. `lead` is added to the text above it."""
    return Chart(
        name="strategies",
        title=title,
        lead=f"{_LEAD}{_ORACLE if any(mark.hollow for mark in marks) else ''}{lead}",
        heads=("strategy", "tokens", "right"),
        across=Axis("tokens per question", logarithmic=True),
        up=Axis("right, percent"),
        marks=tuple(marks),
        command=command,
        broad=len(marks) > _MANY,
        high=440,
        order=order,
    )
