"""What one chooses a file by, against its size: what it lost, how often it is right, how fast it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from dsr.bench.report import metrics
from dsr.bench.report.families import Family, Member
from dsr.bench.report.figures import divergence, interval, share, share_interval, speed
from dsr.bench.report.metrics import MetricComparison, MetricValue, compare
from dsr.bench.report.table import DOUBTFUL
from dsr.store.measurement import Figure, Measurement
from dsr.ui.charts.chart import COLOURS, Axis, Chart, Mark, best_first
from dsr.ui.charts.scales import spread, unit
from runtime.base.types import ByteCount
from runtime.base.words import counted

# Below it a file is its own reference: measure/divergence.py finds as much for a model against itself.
_SAME = 1e-6
_WIDE = 6  # the largest size over the smallest
_MANY = 12  # marks: a chart of more has a row of the page for itself
_HOLLOW = " Hollow: measured otherwise than most of its family."

Point = tuple[Member, MetricValue, str]  # and what is otherwise


def loss(families: Sequence[Family], command: str) -> Chart:
    """Size against KL divergence; what the files were measured against has none and is not shown."""
    found = [
        (family, point)
        for family in families
        for point in _points(family, compare(family.files, metrics.DIVERGENCE))
        if point[1].figure.mean >= _SAME
    ]
    return _against_size(
        "loss",
        "What a smaller file loses",
        "Down and to the left is better. KLD: how far the probabilities of the next token are from those of the file "
        "it was made from, in nats per token, with its 95 % interval. That file itself has 0 and is not shown.",
        Axis("KLD, nats per token", logarithmic=True),
        found,
        command,
        figure=divergence,
        limits=lambda kld: (max(interval(kld)[0], kld.mean / 10), kld.mean, interval(kld)[1]),
        better=-1,
        order=families,
    )


def accuracy(families: Sequence[Family], command: str) -> Chart:
    """Size against accuracy, of families of which several files were asked the same."""
    asked = [(family, compare(family.files, metrics.ACCURACY)) for family in families]
    found: list[tuple[Family, Point]] = []
    told: dict[str, list[str]] = {}
    for family, comparison in asked:
        points = [point for point in _points(family, comparison) if not point[2] and 0 <= point[1].figure.mean <= 1]
        if len(points) > 1:
            found += [(family, point) for point in points]
            told.setdefault(", ".join(comparison.shared()), []).append(family.name)
    return _against_size(
        "accuracy",
        "How often a smaller file is right",
        f"Up and to the left is better; the bar is the 95 % interval. {_told(told)}.",
        Axis("right, percent"),
        found,
        command,
        figure=share,
        limits=_percents,
        better=1,
        order=families,
    )


def speeds(families: Sequence[Family], command: str) -> Chart:
    """Size against the tokens that are written in a second."""
    found = [
        (family, point)
        for family in families
        for point in _points(family, compare(family.files, metrics.SPEED))
        if point[1].figure.mean > 0
    ]
    if len(found) < 2:
        found = []
    values = [point[1].figure.mean for _, point in found]
    doubtful = f" {DOUBTFUL}: disturbed." if any(point[1].row.conditions.disturbed for _, point in found) else ""
    return _against_size(
        "speed",
        "How fast a smaller file writes",
        f"Up and to the left is better. Tokens per second of one answer, with its 95 % interval.{doubtful}",
        Axis("tokens per second", logarithmic=spread(values), zero=True),
        found,
        command,
        figure=speed,
        limits=lambda figure: (max(interval(figure)[0], figure.mean / 2), figure.mean, interval(figure)[1]),
        better=1,
        order=families,
        doubted=True,
    )


def _points(family: Family, comparison: MetricComparison) -> Iterator[Point]:
    for member in family.members:
        measured = comparison.found.get(member.file.digest)
        if measured is not None and member.file.size > 0:
            yield member, measured, ", ".join(comparison.otherwise(member.file.digest))


def _told(told: Mapping[str, Sequence[str]]) -> str:
    """What the families were asked; of which, where it is not the same for all."""
    if len(told) == 1:
        return "Asked: " + next(iter(told))
    return "; ".join(f"{', '.join(families)}: {asked}" for asked, families in told.items())


def _threads(row: Measurement) -> str:
    threads = row.parameters.get("threads")
    return counted(threads, "thread") if isinstance(threads, int) else ""


def _percents(figure: Figure) -> tuple[float, float, float]:
    low, high = share_interval(figure)
    return 100 * low, 100 * figure.mean, 100 * high


def _against_size(
    name: str,
    title: str,
    lead: str,
    up: Axis,
    found: Sequence[tuple[Family, Point]],
    command: str,
    *,
    figure: Callable[[Figure], str],
    limits: Callable[[Figure], tuple[float, float, float]],
    better: Literal[1, -1],
    order: Sequence[Family],
    doubted: bool = False,
) -> Chart:
    """`better`: 1 where more of `up` is."""
    size, of_size = unit([measured.file.size for _, (_, measured, _) in found])
    marks = []
    for family, (member, measured, otherwise) in found:
        low, middle, high = limits(measured.figure)
        doubt = measured.row.conditions.disturbed if doubted else ""
        # A colour tells of which family a file is; behind the last colour its name must.
        coloured = order.index(family) < COLOURS
        label = member.file.name if not coloured else "reference" if member.reference else member.short
        marks.append(
            Mark(
                label=f"{label} {DOUBTFUL}" if doubt else label,
                name=member.file.name,
                figures=(
                    str(ByteCount(measured.file.size)),
                    figure(measured.figure),
                    _threads(measured.row),
                    otherwise,
                    doubt,
                ),
                across=measured.file.size / size,
                up=middle,
                low=low,
                high=high,
                series=family.name,
                hollow=bool(otherwise),
            )
        )
    chart = Chart(
        name=name,
        title=title,
        lead=lead + (_HOLLOW if any(mark.hollow for mark in marks) else ""),
        heads=("file", "size", up.title, "threads", "otherwise", "disturbed"),
        across=Axis(f"size, {of_size}", logarithmic=spread([mark.across for mark in marks], _WIDE), zero=True),
        up=up,
        marks=tuple(marks),
        command=command,
        broad=len(marks) > _MANY,
        high=400 if len(marks) > _MANY else 320,
        order=tuple(family.name for family in order),
    )
    return best_first(chart, up=better)
