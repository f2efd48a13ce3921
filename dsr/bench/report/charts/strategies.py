"""Accuracy against tokens: a mark for each strategy of a file that was measured with several."""

from __future__ import annotations

from collections.abc import Sequence

from dsr.bench.reason.chart import strategies_chart
from dsr.bench.reason.rows import short_label
from dsr.bench.report.figures import share, share_interval
from dsr.bench.report.files import MeasuredFile
from dsr.bench.report.metrics import of_questions
from dsr.store.measurement import Figure, Measurement
from dsr.ui.charts.chart import Chart, Mark, best_first

_LEAST = 1e-9


def strategies(files: Sequence[MeasuredFile], command: str) -> Chart:
    found = {file.name: rows for file in files if len(rows := _asked_the_same(file)) > 1}
    questions = {name: ", ".join(fact.text for fact in of_questions(*rows[0][:2])) for name, rows in found.items()}
    marks = [
        Mark(
            label=short_label(row.test),
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
    if len(set(questions.values())) == 1:
        asked = f"{', '.join(questions)}: {next(iter(questions.values()))}"
    else:
        asked = "; ".join(map(": ".join, questions.items()))
    return best_first(
        strategies_chart(
            marks, title="Accuracy and tokens of strategies", lead=f" {asked}.", command=command, order=tuple(found)
        ),
        up=1,
    )


def _asked_the_same(file: MeasuredFile) -> list[tuple[Measurement, Figure, Figure]]:
    """(row, accuracy, tokens) of each strategy: the latest, for the questions that most strategies answered."""
    asked: dict[object, dict[str, tuple[Measurement, Figure, Figure]]] = {}
    for row in file.of("reason"):
        accuracy, tokens = row.figures.get("accuracy"), row.figures.get("tokens")
        if accuracy is not None and 0 <= accuracy.mean <= 1 and tokens is not None and tokens.mean > _LEAST:
            asked.setdefault(tuple(of_questions(row, accuracy)), {})[row.test] = (row, accuracy, tokens)
    return list(max(reversed(asked.values()), key=len).values()) if asked else []
