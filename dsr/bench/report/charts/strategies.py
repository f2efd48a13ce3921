"""Accuracy against tokens: a mark for each strategy of the files that were asked by several."""

from __future__ import annotations

from collections.abc import Sequence

from dsr.bench.report.aspects import of_questions
from dsr.bench.report.chart import Axis, Chart, Mark
from dsr.bench.report.charts.sizes import MANY, best_first
from dsr.bench.report.figures import share, share_interval
from dsr.bench.report.gather import File
from dsr.store.measurement import Figure, Measurement

_LEAST = 1e-9


def strategies(files: Sequence[File], command: str) -> Chart:
    found = {file.name: rows for file in files if len(rows := _asked_the_same(file)) > 1}
    told = {name: ", ".join(fact.text for fact in of_questions(*rows[0][:2])) for name, rows in found.items()}
    alike = len(set(told.values())) == 1
    marks = [
        Mark(
            label=_shortly(row.test),
            name=f"{name}, {row.test}" if len(found) > 1 else row.test,
            figures=(f"{tokens.mean:.0f} tokens per question", f"{share(accuracy)} right"),
            across=tokens.mean,
            up=100 * accuracy.mean,
            low=100 * share_interval(accuracy)[0],
            high=100 * share_interval(accuracy)[1],
            series=name,
            hollow="oracle" in row.test,
        )
        for name, rows in found.items()
        for row, accuracy, tokens in rows
    ]
    asked = f"{', '.join(told)}: {next(iter(told.values()))}" if alike else "; ".join(map(": ".join, told.items()))
    oracle = " Hollow: an oracle, which uses the key of the suite as no user's question has one."
    return Chart(
        "strategies",
        "What thinking longer brings",
        "Up and to the left is better. Tokens of all samples of a question, those of stopped samples too; the bar is "
        f"the 95 % interval.{oracle if any(mark.hollow for mark in marks) else ''} {asked}.",
        ("strategy", "tokens", "right"),
        Axis("tokens per question", logarithmic=True),
        Axis("right, percent"),
        best_first(marks, up=1),
        command,
        broad=len(marks) > MANY,
        high=440,
        order=tuple(found),
    )


def _asked_the_same(file: File) -> list[tuple[Measurement, Figure, Figure]]:
    """The latest row of each strategy, accuracy and tokens, of the questions that most strategies were asked."""
    asked: dict[object, dict[str, tuple[Measurement, Figure, Figure]]] = {}
    for row in file.of("reason"):
        accuracy, tokens = row.figures.get("accuracy"), row.figures.get("tokens")
        if accuracy is not None and 0 <= accuracy.mean <= 1 and tokens is not None and tokens.mean > _LEAST:
            asked.setdefault(tuple(of_questions(row, accuracy)), {})[row.test] = (row, accuracy, tokens)
    return list(max(reversed(asked.values()), key=len).values()) if asked else []


def _shortly(test: str) -> str:
    """'vote 8 beta' of 'vote n=8 stop=beta', without what a strategy was told not to do."""
    words = []
    for word in test.removesuffix(" (oracle)").split():
        name, _, value = word.partition("=")
        if value not in ("none", "0"):
            words.append(value if value and name in ("n", "stop", "weights") else word.replace("=", " "))
    return " ".join(words)
