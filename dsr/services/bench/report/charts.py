"""The charts of a report: which rows are points of which picture."""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from dsr.records import Figure, Kind, Row
from dsr.services.bench.report.drawing import Axis, Chart, Mark
from dsr.services.bench.report.gathering import (
    File,
    Gathered,
    interval,
    quant_or_name,
    share_interval,
    short_name,
)
from dsr.services.bench.report.table import conditions_of_quality, plus_minus, share, speed
from quant.experts import RANDOM
from runtime.strategies.task import MOST_SAMPLES
from runtime.types import ByteCount

# Below it a file is the one it is measured against: quant/measure.py finds as much for a model against itself.
_SAME = 1e-6
_LEAST = 1e-9
_WIDE = 20  # the largest over the smallest: more of it is shown by a logarithm

_KEPT = re.compile(r"(\d+) of (\d+)")


def charts(gathered: Gathered) -> tuple[Chart, ...]:
    """All of them, those without marks too."""
    return tuple(make(gathered) for make in (loss, strategies, votes, memory, experts))


def _models(gathered: Gathered) -> str:
    return shlex.join(dict.fromkeys(file.model for file in gathered.files))


def _names(gathered: Gathered) -> tuple[str, ...]:
    return tuple(file.name for file in gathered.files)


def loss(gathered: Gathered) -> Chart:
    """Size against KL divergence, a mark for each file and what it was measured against."""
    latest = {(file.digest, conditions_of_quality(row)): (file, row) for file, row in _rows_of(gathered, "quality")}
    found = [
        (file, against, kld)
        for (_, against), (file, row) in latest.items()
        if file.size > 0 and (kld := row.figures.get("kld_mean")) is not None and kld.mean >= _SAME
    ]
    unit, name = _unit([file.size for file, _, _ in found])
    marks = [
        Mark(
            label=quant_or_name(file),
            across=file.size / unit,
            up=kld.mean,
            low=max(interval(kld)[0], kld.mean / 10),
            high=interval(kld)[1],
            tip=f"{file.name}: {ByteCount(file.size)}, KLD {plus_minus(kld, 5)}",
            series=against,
        )
        for file, against, kld in found
    ]
    return Chart(
        "loss",
        "What a smaller file loses",
        "Down and to the left is better. KLD: how far the probabilities of the next token are from those of the file "
        "it was made from, in nats per token; the bar is its 95 % interval. That file itself has 0 and is not shown.",
        Axis(f"size, {name}", logarithmic=_spread([mark.across for mark in marks]), zero=True),
        Axis("KLD, nats per token", logarithmic=True),
        _best_first(marks, up=-1),
        f"dsr bench quality {_models(gathered)} --against REFERENCE",
    )


def strategies(gathered: Gathered) -> Chart:
    """Accuracy against tokens, a mark for each strategy of each file."""
    found = _of_accuracy(_rows_of(gathered, "reason"))
    several = len({file.digest for file, _, _ in found}) > 1
    suites = len({row.parameters.get("suite") for _, row, _ in found})
    marks = [
        Mark(
            label=row.test.removesuffix(" (oracle)"),
            across=tokens.mean,
            up=100 * accuracy.mean,
            low=100 * share_interval(accuracy)[0],
            high=100 * share_interval(accuracy)[1],
            tip=f"{file.name}, {row.test}: {share(accuracy)} right, {tokens.mean:.0f} tokens per question",
            series=", ".join([*([file.name] if several else []), *(_suite(row) if suites > 1 else [])]),
            hollow="oracle" in row.test,
        )
        for file, row, accuracy in found
        if (tokens := row.figures.get("tokens")) is not None and tokens.mean > _LEAST
    ]
    return Chart(
        "strategies",
        "What thinking longer brings",
        "Up and to the left is better. Tokens of all samples of a question, those of stopped samples too; the bar is "
        "the 95 % interval. Hollow: an oracle, which uses the key of the suite as no user's question has one.",
        Axis("tokens per question", logarithmic=True),
        Axis("right, percent"),
        _best_first(marks, up=1),
        f"dsr bench reason {shlex.quote(gathered.files[0].model)}",
        high=440,
        order=_names(gathered),
    )


def votes(gathered: Gathered) -> Chart:
    """Tokens per second of all samples together, a line for each file."""
    marks = []
    for file in gathered.files:
        for row in file.of("speed"):
            figure, count = row.figures.get("tokens_per_second"), row.parameters.get("votes")
            if (
                not row.test.startswith("votes")
                or figure is None
                or not isinstance(count, int)
                or not 1 <= count <= MOST_SAMPLES
            ):
                continue
            low, high = interval(figure)
            tip = f"{file.name}, {count} at once: {speed(figure)} tokens per second{_doubt(row)}"
            marks.append(Mark("", count, figure.mean, low, high, tip, file.name))
    return Chart(
        "votes",
        "What voting costs in speed",
        "Tokens per second of all samples of one question together, which share its prompt. Where the line is flat, "
        "two samples take twice as long as one.",
        Axis("samples drawn at once", logarithmic=True, ticks=tuple(sorted({mark.across for mark in marks}))),
        Axis("tokens per second, together", zero=True),
        tuple(marks),
        f"dsr bench speed {_models(gathered)}",
        joined=True,
        order=_names(gathered),
    )


def memory(gathered: Gathered) -> Chart:
    """What was foretold against what was taken, by the speed bench and by everything that ran."""
    pairs: list[tuple[str, float, float]] = [
        (file.name, row.figures["predicted_bytes"].mean, row.figures["bytes"].mean)
        for file in gathered.files
        for row in file.of("speed")
        if {"predicted_bytes", "bytes"} <= row.figures.keys()
    ]
    pairs += [(short_name(run.model), run.predicted.memory, run.measured.memory) for run in gathered.runs]
    pairs = list(dict.fromkeys(pair for pair in pairs if min(pair[1:]) >= 1))
    unit, name = _unit([value for pair in pairs for value in pair[1:]])
    wide = _spread([value for pair in pairs for value in pair[1:]])
    marks = tuple(
        Mark(
            label="",
            across=predicted / unit,
            up=measured / unit,
            low=measured / unit,
            high=measured / unit,
            tip=f"{model}: {ByteCount(predicted)} predicted, {ByteCount(measured)} measured "
            f"({predicted / measured - 1:+.0%})",
            series=model,
        )
        for model, predicted, measured in pairs
    )
    return Chart(
        "memory",
        "Memory, predicted and measured",
        "On the line what was predicted was right; above it more memory was taken than predicted.",
        Axis(f"predicted, {name}", logarithmic=wide, zero=True),
        Axis(f"measured, {name}", logarithmic=wide, zero=True),
        marks,
        f"dsr bench speed {_models(gathered)}",
        diagonal=True,
        order=_names(gathered),
    )


def experts(gathered: Gathered) -> Chart:
    """Accuracy against the experts that are kept: means over tasks, a line for each way to choose them."""
    found = {file.name: tuple(_of_experts(file)) for file in gathered.files if file.of("experts")}
    marks = [
        replace(mark, series=f"{name}, {mark.series}") if len(found) > 1 else mark
        for name, of_file in found.items()
        for mark in of_file
    ]
    return Chart(
        "experts",
        "What fewer experts cost",
        "Experts kept in each layer, chosen by a task's own profile, by those of all tasks, by another task's, or by "
        "lot. Means over tasks, where each keeps as many; the bar is the 95 % interval.",
        Axis("experts kept in each layer", zero=True),
        Axis("right, percent"),
        tuple(sorted(marks, key=lambda mark: (mark.series, mark.across))),
        f"dsr bench experts {shlex.quote(gathered.files[0].model)}",
        joined=True,
    )


def _of_experts(file: File) -> Iterator[Mark]:
    grouped: dict[tuple[str, float], list[Row]] = {}
    whole: list[Row] = []
    rows = [row for _, row, _ in _of_accuracy((file, row) for row in file.of("experts"))]
    tasks = {row.parameters.get("task") for row in rows}
    several = len({row.parameters.get("score") for row in rows} - {RANDOM}) > 1
    for row in rows:
        kept = _kept(row)
        if kept is not None and kept == row.parameters.get("experts"):
            whole.append(row)
        elif kept is not None:
            grouped.setdefault((_chosen_by(row, several), kept), []).append(row)
    lines = {by for by, _ in grouped} or {"all"}
    if whole:
        # Who keeps all has no choice: every line ends there.
        grouped |= {(by, float(_kept(whole[0]) or 0)): whole for by in lines}
    for (by, kept), found in grouped.items():
        if {row.parameters.get("task") for row in found} != tasks:
            continue
        accuracy = _mean([row.figures["accuracy"] for row in found])
        low, high = share_interval(accuracy)
        tip = f"{file.name}, {kept:g} experts, {'all' if found is whole else by}: {share(accuracy)} right"
        yield Mark("", kept, 100 * accuracy.mean, 100 * low, 100 * high, tip, by)


def _rows_of(gathered: Gathered, kind: Kind) -> Iterator[tuple[File, Row]]:
    return ((file, row) for file in gathered.files for row in file.of(kind))


def _of_accuracy(rows: Iterable[tuple[File, Row]]) -> list[tuple[File, Row, Figure]]:
    return [
        (file, row, accuracy)
        for file, row in rows
        if (accuracy := row.figures.get("accuracy")) is not None and 0 <= accuracy.mean <= 1
    ]


def _mean(figures: Sequence[Figure]) -> Figure:
    """Of independent means, each weighing the same."""
    errors = [figure.error for figure in figures if figure.error is not None]
    error = sum(each**2 for each in errors) ** 0.5 / len(figures) if len(errors) == len(figures) else None
    return Figure(statistics.fmean(figure.mean for figure in figures), error, sum(figure.count for figure in figures))


def _suite(row: Row) -> list[str]:
    suite = row.parameters.get("suite")
    return [short_name(str(suite))] if suite else []


def _doubt(row: Row) -> str:
    return f" ({row.conditions.disturbed})" if row.conditions.disturbed else ""


def _kept(row: Row) -> float | None:
    """From the parameters, else from a test such as 'own 8 of 16'."""
    told = row.parameters.get("kept")
    if isinstance(told, (int, float)) and 0 < told < 1e6:
        return float(told)
    found = _KEPT.search(row.test)
    return float(found[1]) if found and len(found[1]) < 7 else None


def _chosen_by(row: Row, several: bool) -> str:
    """'own', 'merged'; 'own by mass' where there are several scores."""
    told, score = row.parameters.get("profile"), row.parameters.get("score")
    by = str(told) if told else row.test.partition(" ")[0] or "?"
    return f"{by} by {score}" if several and score != by else by


def _unit(sizes: Sequence[float]) -> tuple[float, str]:
    """That of the largest."""
    largest = max(sizes, default=0)
    return (1 << 30, "GiB") if largest >= 1 << 30 else (1 << 20, "MiB")


def _spread(values: Sequence[float]) -> bool:
    return bool(values) and max(values) > _WIDE * min(values)


def _best_first(marks: Sequence[Mark], *, up: int) -> tuple[Mark, ...]:
    """Those that a user could have, with nothing better for less, come first: their names are placed first. `up`: 1
    where more is better, else -1."""
    ranked = sorted(marks, key=lambda mark: (mark.across, -up * mark.up, mark.label))
    best: list[Mark] = []
    for mark in ranked:
        if not mark.hollow and (not best or up * mark.up > up * best[-1].up):
            best.append(mark)
    return (*best, *(mark for mark in ranked if mark not in best))
