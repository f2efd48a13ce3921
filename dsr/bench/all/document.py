"""`dsr bench all` as a document: what was measured and how, then every model with its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dsr.bench.all import tables
from dsr.bench.all.claims import claims
from dsr.bench.all.files import IMATRIX_CHUNKS
from dsr.bench.all.result import AllBench, ModelResult
from dsr.bench.experts import tables as experts_report
from dsr.bench.kit.table import Table, left
from dsr.bench.reason import tables as reason_report
from dsr.store.measurement import Conditions
from runtime.base.types import ByteCount, counted

_ORIGINAL_BITS = 15  # fewer: the weights are no original ones
_CLAIMS = left("what the papers show", "published", "measured here", "verdict")


def as_markdown(bench: AllBench, command: str, date: str, note: str = "") -> str:
    """`note` is the author's own."""
    parts = ["# What files, strategies and pruning are worth", "", f"    {command}", ""]
    parts += [f"Made {date} by this command, which goes on where it is stopped{_where(bench)}.", ""]
    parts += [note, ""] if note else []
    if words := tables.disturbances(bench):
        parts += [f"{words[0].upper()}{words[1:]}: these speeds are noisy; memory, accuracy and KLD are not.", ""]
    parts += [f"{tables.LEGEND[0].upper()}{tables.LEGEND[1:]}.", ""]
    notes = tables.warnings(bench)
    parts += [*(f"- {each}" for each in notes), *([""] if notes else [])]
    for result in bench.results:
        parts += _section(result)
    return "\n".join(parts).rstrip() + "\n"


def _where(bench: AllBench) -> str:
    conditions: Conditions | None = next((row.conditions for row in bench.rows), None)
    if conditions is None:
        return ""
    return (
        f", on {conditions.processor}, {counted(conditions.cores, 'core')}, {ByteCount(conditions.memory)}, "
        f"dsr {conditions.dsr}, llama-cpp-python {conditions.engine}"
    )


def _section(result: ModelResult) -> Iterator[str]:
    yield from (f"## {result.name}", "")
    yield from _about(result)
    yield from ("", *tables.all_figures(result).markdown())
    if votes := tables.votes_of_model(result):
        yield from ("", f"{votes[0].upper()}{votes[1:]}.")
    yield from _compared(result)
    if result.strategies is not None:
        named = replace(result.strategies, model=result.name)  # as here, not by where it lies
        yield from ("", f"### {reason_report.title(named)}", "", *reason_report.section(named))
    if result.experts is not None:
        yield from ("", *_experts(result))
    yield ""


def _compared(result: ModelResult) -> Iterator[str]:
    found = claims(result)
    if not found:
        return
    sources = list(dict.fromkeys(each.source for each in found))
    yield from ("", "### Are the papers' orderings seen?", "")
    rows = [
        (each.claim, f"{each.published} [{sources.index(each.source) + 1}]", each.measured, each.verdict)
        for each in found
    ]
    yield from Table.of(_CLAIMS, rows).markdown()
    yield ""
    yield from (f"{number}. {source}" for number, source in enumerate(sources, 1))
    yield from (
        "",
        "*seen*: the interval of 95 % of the measured difference lies wholly on the published side; *not seen*: wholly "
        "on the other; *undecided*: too little was measured to tell. Differences of accuracy are over the same "
        "questions; those of KLD take errors as independent.",
    )


def _about(result: ModelResult) -> Iterator[str]:
    quality = next((file.quality for file in result.files if file.quality), None)
    notes = []
    if quality is not None:
        notes.append(
            f"Reference: {result.against}. Loss: {quality.test}, "
            f"{counted(quality.figures['ppl'].count, 'token')} scored."
        )
    questions = max((len(file.answers.solved) for file in result.files if file.answers), default=0)
    notes.append(f"{counted(questions, 'question')} of {result.suite}." if questions else "No questions were asked.")
    if len(result.files) > 1:
        notes.append(
            f"All other files were made of it; types that need an importance matrix have one of {IMATRIX_CHUNKS} x 512 "
            "tokens of the built-in calibration text, which is another than the one that losses are measured on."
        )
        if result.source_bits < _ORIGINAL_BITS:
            notes.append(
                f"Its own weights were quantized before, to {result.source_bits:.2f} bits: what was lost then is not "
                "seen in these losses, and quantizing twice adds its own."
            )
    yield " ".join(notes)


def _experts(result: ModelResult) -> Iterator[str]:
    assert result.experts is not None
    bench = replace(result.experts, model=result.name)
    words = experts_report.title(bench)
    yield from (f"### {words[0].upper()}{words[1:]}", "", f"{experts_report.conditions(bench)}.", "")
    yield from experts_report.table(bench).without_first().aligned(range(2, 9)).markdown()
    yield ""
    yield from (f"- {each}" for each in (*experts_report.findings(bench), *experts_report.warnings(bench)))
    yield f"- {experts_report.LEGEND}."
    yield (
        "- own: chosen by the task's own profile, merged: by those of all tasks, other: by another task's, random: by "
        "lot, three times."
    )
