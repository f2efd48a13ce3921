"""A bench of reasoning as a table, as CSV and as Markdown."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dsr.bench.kit.table import Table, csv_text, left, right
from dsr.bench.reason.bench import ReasonBench
from dsr.bench.reason.score import Score
from dsr.store.measurement import Figure, Measurement
from dsr.ui.charts.terminal import letter
from runtime.base.types import counted

# Below the table, for whoever sees it for the first time.
LEGEND = "per question: tokens of all samples; chain: tokens that wait for each other; ~ with all slots busy"


def table(bench: ReasonBench) -> Table:
    columns = (*left(" ", "strategy"), *right("right", "95 %", "tokens", "chain", "seconds"))
    rows = [
        (
            letter(number),
            score.line.label,
            f"{100 * score.accuracy:.1f}",
            f"{100 * score.low:.0f}-{100 * score.high:.0f}",
            f"{score.tokens:.0f}",
            f"{score.sequential:.0f}",
            _seconds(score),
        )
        for number, score in enumerate(bench.scores)
    ]
    return Table.of(columns, rows)


def title(bench: ReasonBench) -> str:
    problems, samples = counted(bench.problems, "problem"), counted(bench.samples, "sample")
    return f"{bench.model} on {bench.suite}: {problems}, {samples} each"


def conditions(bench: ReasonBench) -> str:
    """'temperature 1.0, top-p 0.95, top-k 40, seed 0'; what is switched off is left out."""
    notes = bench.conditions
    words = [f"temperature {notes['temperature']}"]
    words += [f"top-p {notes['top_p']}"] if notes["top_p"] < 1 else []
    words += [f"top-k {notes['top_k']}"] if notes["top_k"] else []
    words += [f"min-p {notes['min_p']}"] if notes["min_p"] else []
    words += [f"at most {notes['max_tokens']} tokens"] if notes["max_tokens"] else []
    words += [f"at most {notes['think_budget']} of them thinking"] if notes["think_budget"] is not None else []
    words += ["without thinking"] if notes["thinking"] is False else []
    return ", ".join([*words, f"seed {notes['seed']}"])


def rows(bench: ReasonBench) -> tuple[Measurement, ...]:
    """What `dsr bench history` keeps: a row for each line of the table."""
    notes = {name: value for name, value in bench.conditions.items() if name not in ("model", "suite")}
    now = time.time()
    return tuple(
        Measurement(
            kind="reason",
            model=bench.model,
            digest=bench.conditions["model"],
            size=bench.size,
            test=score.line.label,
            parameters={"suite": bench.suite, "problems": score.problems, "samples": bench.samples, **notes},
            figures={
                # Half of the interval is 1.96 standard errors, were it that of a normal distribution.
                "accuracy": Figure(score.accuracy, (score.high - score.low) / 2 / 1.96, score.problems),
                "tokens": Figure(score.tokens),
                "chain": Figure(score.sequential),
                "seconds": Figure(score.seconds),
            },
            conditions=bench.measured,
            at=now,
        )
        for score in bench.scores
    )


def as_csv(bench: ReasonBench) -> str:
    rows = [{**score.json(), "settings": _settings(score)} for score in bench.scores]
    return csv_text(rows) if rows else "row\n"


def as_markdown(bench: ReasonBench, command: str) -> str:
    """A document of its own: the command, and the section."""
    return "\n".join([f"# {title(bench)}", "", f"    {command}", "", *section(bench), ""])


def section(bench: ReasonBench) -> tuple[str, ...]:
    """The lines of a document's section: the conditions, the table, and how to read it."""
    notes = [f"- {warning}" for warning in warnings(bench)]
    return (
        f"Sampling: {conditions(bench)}.",
        "",
        *_all_figures(bench).markdown(),
        *(["", *notes] if notes else []),
        "",
        *_HOW_TO_READ,
    )


_HOW_TO_READ = (
    "- *right*: the mean over problems; *95 % interval*: Wilson's, for means over several decisions of a problem with",
    "  the standard error of the problems' means.",
    "- *tokens*: drawn per question, those of stopped and cut samples too; *chain*: the longest chain of tokens that",
    "  wait for each other; *seconds*: measured, question after question, where a strategy draws for itself; with ~",
    "  the chain at the pace of its samples, while those of other questions filled the slots: not to be compared.",
    "- Lines of the same samples: where n samples are fewer than were drawn, each problem is decided several times.",
    "- *oracle*: the key of the suite took part, as no user's question has one.",
)


def _all_figures(bench: ReasonBench) -> Table:
    numbers = ("right, %", "95 % interval", "tokens", "tokens in all", "chain", "seconds", "decisions")
    rows = [
        (
            f"`{score.line.label}`",
            f"{100 * score.accuracy:.1f}",
            f"{100 * score.low:.1f} to {100 * score.high:.1f}",
            f"{score.tokens:.0f}",
            str(score.tokens_total),
            f"{score.sequential:.0f}",
            _seconds(score),
            str(score.decisions),
        )
        for score in bench.scores
    ]
    return Table.of((*left("strategy"), *right(*numbers)), rows)


def _seconds(score: Score) -> str:
    """Those that were not measured on one question alone have a ~."""
    return f"{'' if score.line.source == 'own' else '~'}{score.seconds:.2f}"


def _settings(score: Score) -> str:
    return " ".join(f"{key}={value}" for key, value in score.json()["settings"].items())


def warnings(bench: ReasonBench) -> Sequence[str]:
    """What a reader of the table must know."""
    notes = [f"{row} could not be run: {why}" for row, why in bench.skipped]
    if bench.interrupted:
        counts = [score.problems for score in bench.scores]
        few, many = min(counts), max(counts)
        notes.append(f"stopped: lines stand on {f'{few} to ' if few < many else ''}{counted(many, 'problem')}")
    if bench.unfinished:
        notes.append(f"{counted(bench.unfinished, 'sample')} came to the limit of tokens before the end")
    return notes
