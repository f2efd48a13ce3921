"""Loss, accuracy and speed against the size of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dsr.bench.report.families import Family, Member
from dsr.bench.report.figures import divergence, interval, share, share_interval, speed
from dsr.bench.report.metrics import ACCURACY, DIVERGENCE, SPEED, MetricComparison, MetricValue, compare
from dsr.bench.report.table import DOUBTFUL
from dsr.store.measurement import Figure, Measurement
from dsr.ui.charts.chart import COLOURS, Axis, Chart, Mark, best_first
from dsr.ui.charts.scales import spread, unit
from runtime.base.types import ByteCount, counted

# A smaller KLD is a rounding error: quant/measure/divergence.py finds as much for a model against itself.
_NO_LOSS = 1e-6
_WIDE = 6  # largest size / smallest size from which on the axis is logarithmic
_MANY = 12  # marks from which on a chart takes the full width of a page
_HOLLOW = " Hollow: measured under other conditions than most files of its family."

Limits = tuple[float, float, float]  # the low end of an interval, the value, the high end


@dataclass(frozen=True, slots=True)
class SizedValue:
    """A value of a metric that belongs to a file with a known size. `otherwise`: how its conditions differ."""

    family: Family
    member: Member
    value: MetricValue
    otherwise: str

    @property
    def mean(self) -> float:
        return self.value.figure.mean


def loss(families: Sequence[Family], command: str) -> Chart:
    """Size against KL divergence. The references have no loss and are left out."""
    found = [
        each
        for family in families
        for each in _values(family, compare(family.files, DIVERGENCE))
        if each.mean >= _NO_LOSS
    ]
    return _against_size(
        Axis("KLD, nats per token", logarithmic=True),
        _marks(found, families, divergence, lambda kld: _limits(kld, least=kld.mean / 10)),
        name="loss",
        title="Loss of smaller files",
        lead="Down and to the left is better. KLD: how far the probabilities of the next token are from those of the "
        "file it was made from, in nats per token, with its 95 % interval. That file itself has 0 and is not shown.",
        command=command,
        families=families,
        better=-1,
    )


def accuracy(families: Sequence[Family], command: str) -> Chart:
    """Size against accuracy, for families with several files that answered the same questions."""
    found: list[SizedValue] = []
    asked: dict[str, list[str]] = {}
    for family in families:
        comparison = compare(family.files, ACCURACY)
        values = [each for each in _values(family, comparison) if not each.otherwise and 0 <= each.mean <= 1]
        if len(values) > 1:
            found += values
            asked.setdefault(", ".join(comparison.shared()), []).append(family.name)
    return _against_size(
        Axis("right, percent"),
        _marks(found, families, share, _percents),
        name="accuracy",
        title="Accuracy of smaller files",
        lead=f"Up and to the left is better; the bar is the 95 % interval. {_questions(asked)}.",
        command=command,
        families=families,
        better=1,
    )


def speeds(families: Sequence[Family], command: str) -> Chart:
    """Size against the speed of token generation."""
    found = [each for family in families for each in _values(family, compare(family.files, SPEED)) if each.mean > 0]
    if len(found) < 2:
        found = []
    doubtful = f" {DOUBTFUL}: disturbed." if any(_disturbed(each) for each in found) else ""
    return _against_size(
        Axis("tokens per second", logarithmic=spread([each.mean for each in found]), zero=True),
        _marks(found, families, speed, lambda figure: _limits(figure, least=figure.mean / 2), _disturbed),
        name="speed",
        title="Speed of smaller files",
        lead=f"Up and to the left is better. Tokens per second of one answer, with its 95 % interval.{doubtful}",
        command=command,
        families=families,
        better=1,
    )


def _values(family: Family, comparison: MetricComparison) -> Iterator[SizedValue]:
    for member in family.members:
        value = comparison.found.get(member.file.digest)
        if value is not None and member.file.size > 0:
            yield SizedValue(family, member, value, ", ".join(comparison.otherwise(member.file.digest)))


def _questions(asked: Mapping[str, Sequence[str]]) -> str:
    """Which questions were asked; by family if they differ."""
    if len(asked) == 1:
        return "Questions: " + next(iter(asked))
    return "; ".join(f"{', '.join(families)}: {questions}" for questions, families in asked.items())


def _limits(figure: Figure, *, least: float) -> Limits:
    """The 95 % interval around the mean, from `least` on."""
    low, high = interval(figure)
    return max(low, least), figure.mean, high


def _percents(figure: Figure) -> Limits:
    low, high = share_interval(figure)
    return 100 * low, 100 * figure.mean, 100 * high


def _disturbed(value: SizedValue) -> str:
    return value.value.row.conditions.disturbed


def _threads(row: Measurement) -> str:
    threads = row.parameters.get("threads")
    return counted(threads, "thread") if isinstance(threads, int) else ""


def _marks(
    values: Sequence[SizedValue],
    families: Sequence[Family],
    text: Callable[[Figure], str],
    limits: Callable[[Figure], Limits],
    doubt: Callable[[SizedValue], str] = lambda value: "",
) -> list[Mark]:
    """A mark for each value; `across` is the size in bytes. `doubt`: why a value is doubtful, "" if it is not."""
    marks = []
    for each in values:
        low, middle, high = limits(each.value.figure)
        file, doubtful = each.member.file, doubt(each)
        # The colour of a mark is its family. Families without a colour need the whole name.
        coloured = families.index(each.family) < COLOURS
        label = file.name if not coloured else "reference" if each.member.reference else each.member.short
        size, threads = str(ByteCount(file.size)), _threads(each.value.row)
        marks.append(
            Mark(
                label=f"{label} {DOUBTFUL}" if doubtful else label,
                name=file.name,
                figures=(size, text(each.value.figure), threads, each.otherwise, doubtful),
                across=file.size,
                up=middle,
                low=low,
                high=high,
                series=each.family.name,
                hollow=bool(each.otherwise),
            )
        )
    return marks


def _against_size(
    up: Axis,
    marks: Sequence[Mark],
    *,
    name: str,
    title: str,
    lead: str,
    command: str,
    families: Sequence[Family],
    better: Literal[1, -1],
) -> Chart:
    """The chart of these marks. `better`: 1 if more is better, else -1."""
    size, size_name = unit([mark.across for mark in marks])
    many = len(marks) > _MANY
    chart = Chart(
        name=name,
        title=title,
        lead=lead + (_HOLLOW if any(mark.hollow for mark in marks) else ""),
        heads=("file", "size", up.title, "threads", "otherwise", "disturbed"),
        across=Axis(f"size, {size_name}", logarithmic=spread([mark.across for mark in marks], _WIDE), zero=True),
        up=up,
        marks=tuple(replace(mark, across=mark.across / size) for mark in marks),
        command=command,
        broad=many,
        high=400 if many else 320,
        order=tuple(family.name for family in families),
    )
    return best_first(chart, up=better)
