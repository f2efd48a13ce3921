"""Tokens per second of all samples together: a line for each file that was measured with several sample counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from dsr.bench.report.families import Family, Member
from dsr.bench.report.figures import interval, speed
from dsr.store.measurement import Figure, Parameter
from dsr.ui.charts.chart import COLOURS, Axis, Chart, Mark
from dsr.ui.charts.scales import spread
from runtime.strategies.task import MOST_SAMPLES

Line = tuple[Mark, ...]

_ALIKE = ("prompt", "generated", "depth", "threads", "kv_type", "batch")


def votes(families: Sequence[Family], command: str) -> Chart:
    lines = [[line for member in family.members if len(line := _line(member)) > 1] for family in families]
    named = _fastest_of_each(lines)
    marks = tuple(mark for of_family in lines for line in of_family for mark in _named(line, line in named))
    return Chart(
        name="votes",
        title="Speed of votes",
        lead="Tokens per second of all samples of one question together; they share the prompt. Where the line is "
        "flat, two samples take twice as long as one.",
        heads=("file", "at once", "tokens per second, together", "disturbed"),
        across=Axis("samples drawn at once", logarithmic=True, ticks=tuple(sorted({mark.across for mark in marks}))),
        up=Axis("tokens per second, together", logarithmic=spread([mark.up for mark in marks]), zero=True),
        marks=marks,
        command=command,
        joined=True,
        order=tuple(line[0].series for line in named),
    )


def _line(member: Member) -> Line:
    """Marks of the rows that differ only in the number of samples; the longest such line."""
    lines: dict[tuple[Parameter, ...], dict[int, Mark]] = {}
    for row in member.file.of("speed"):
        figure, count = row.figures.get("tokens_per_second"), row.parameters.get("votes")
        if not row.test.startswith("votes") or figure is None or figure.mean <= 0 or not isinstance(count, int):
            continue
        if 1 <= count <= MOST_SAMPLES:
            alike = tuple(row.parameters.get(name) for name in _ALIKE)
            lines.setdefault(alike, {})[count] = _mark(member.file.name, count, figure, row.conditions.disturbed)
    return tuple(max(reversed(lines.values()), key=len).values()) if lines else ()


def _mark(name: str, count: int, figure: Figure, disturbed: str) -> Mark:
    low, high = interval(figure)
    return Mark(
        label="",
        name=name,
        figures=(f"{count} at once", f"{speed(figure)} tokens per second", disturbed),
        across=count,
        up=figure.mean,
        low=max(low, figure.mean / 2),
        high=high,
        series=name,
    )


def _fastest_of_each(families: Sequence[Sequence[Line]]) -> list[Line]:
    """One line for each colour: the fastest of each family, then the second of each, and so on."""
    ranked = [sorted(lines, key=lambda line: -max(mark.up for mark in line)) for lines in families]
    return [line for each in zip_longest(*ranked) for line in each if line is not None][:COLOURS]


def _named(line: Line, named: bool) -> Line:
    """The line, with its name at its last mark if `named`."""
    last = max(line, key=lambda mark: mark.across)
    return tuple(replace(mark, label=mark.series) if named and mark is last else mark for mark in line)
