"""Accuracy against the number of experts as a chart: a line for each way to choose experts."""

from __future__ import annotations

from collections.abc import Sequence

from dsr.bench.experts.bench import ExpertsBench
from dsr.bench.experts.tables import case_groups, title
from dsr.ui.charts.chart import Axis, Chart, Mark
from quant.experts.prune_plan import RANDOM

_WAYS = ("own", "merged", "other", RANDOM)
_LEAD = (
    "Experts kept in each layer, chosen by the profile of the task itself (own), of all tasks (merged), of another "
    "task (other), or at random. A mark is the mean over all tasks; the bar is the 95 % interval."
)


def chart(bench: ExpertsBench) -> Chart:
    """Returns the chart with its marks in the order of the table. The row with all experts belongs to no line."""
    marks = [
        Mark(
            label="all" if group.unpruned else group.keep,
            name=f"{group.keep} {'all' if group.unpruned else group.label}",
            figures=(
                f"{group.kept:.3g} experts",
                f"{100 * group.accuracy:.1f} % ({100 * group.low:.0f} to {100 * group.high:.0f}) right",
            ),
            across=group.kept,
            up=100 * group.accuracy,
            low=100 * group.low,
            high=100 * group.high,
            series="" if group.unpruned else group.label,
        )
        for group in case_groups(bench)
    ]
    return experts_chart(marks, title=title(bench))


def experts_chart(marks: Sequence[Mark], *, title: str, name: str = "experts", command: str = "") -> Chart:
    return Chart(
        name=name,
        title=title,
        lead=_LEAD,
        heads=("chosen", "kept", "right"),
        across=Axis("experts kept in each layer", zero=True),
        up=Axis("right, percent"),
        marks=tuple(marks),
        command=command,
        joined=True,
        order=tuple(sorted({mark.series for mark in marks}, key=_place)),
    )


def _place(series: str) -> tuple[int, str]:
    """Returns the place of a series: 'own by mass' has the place of 'own'; marks without a series come last."""
    way = series.partition(" ")[0]
    return _WAYS.index(way) if way in _WAYS else len(_WAYS) + (not series), series
