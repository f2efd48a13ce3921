"""Shows the result of `dsr bench all` as tables and as a Markdown document: a row for each file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from dsr.bench.all.claims import claims
from dsr.bench.all.files import IMATRIX_CHUNKS
from dsr.bench.all.request import SPEED_OF_FILE
from dsr.bench.all.rows import ITSELF, AllBench, FileResult, ModelResult
from dsr.bench.experts import tables as experts_tables
from dsr.bench.kit.table import Table, left, right
from dsr.bench.reason import tables as reason_tables
from dsr.store.measurement import Conditions, Figure, Measurement
from runtime.base.types import ByteCount, counted

PROMPT = f"pp{SPEED_OF_FILE.prompts[0]}"
DECODED = f"tg{SPEED_OF_FILE.generated[0]}"
VOTES = f"votes {SPEED_OF_FILE.votes[0]}"
DOUBTFUL = "†"

_FILE = left("file")
_LOSS = right("size", "bits", "KLD", "perplexity", "same top", "right", "95 %")
_COST = right(PROMPT, DECODED, VOTES, "memory", "predicted")
_ORIGINAL_BITS = 15  # with fewer, the weights are not original weights
_CLAIMS = left("ordering", "published", "measured here", "verdict")
# For readers who see the tables for the first time.
LEGEND = (
    "bits: per weight; KLD: KL divergence from the reference, nats per token; same top: how often both find the same "
    f"token most likely, percent; right: greedy answers, percent, with Wilson's 95 % interval; {PROMPT}, {DECODED}, "
    f"{VOTES}: tokens per second, as in dsr bench speed; memory: the peak of the process; ±: standard error; "
    f"{DOUBTFUL}: disturbed by other work"
)


def losses(result: ModelResult) -> Table:
    """Returns size and quality, a row for each file, without the columns in which nothing was measured."""
    return _losses(result).without_empty()


def costs(result: ModelResult) -> Table:
    """Returns speed and memory, a row for each file, without the columns in which nothing was measured."""
    return _costs(result).without_empty()


def all_figures(result: ModelResult) -> Table:
    """Returns the columns of both tables."""
    return _losses(result).join(_costs(result).without_first()).without_empty()


def _losses(result: ModelResult) -> Table:
    rows = [
        (
            file.recipe or file.name,
            str(ByteCount(file.size)),
            f"{file.bits_per_weight:.2f}",
            _quality(file, "kld_mean"),
            _quality(file, "ppl"),
            f"{100 * file.quality.figures['top1_agreement'].mean:.1f}" if file.quality else "",
            f"{100 * file.answers.accuracy:.1f}" if file.answers else "",
            f"{100 * file.answers.low:.0f}-{100 * file.answers.high:.0f}" if file.answers else "",
        )
        for file in result.files
    ]
    return Table.of((*_FILE, *_LOSS), rows)


def _costs(result: ModelResult) -> Table:
    rows = [
        (
            file.recipe or file.name,
            *(_speed(file, test) for test in (PROMPT, DECODED, VOTES)),
            *(_memory(file, name) for name in ("bytes", "predicted_bytes")),
        )
        for file in result.files
    ]
    return Table.of((*_FILE, *_COST), rows)


def votes_of_model(result: ModelResult) -> str:
    """Returns the speeds of votes with the model itself, as text; "" if they were not measured."""
    original = result.file(ITSELF)
    rows = [row for row in original.speed if row.test.startswith("votes")] if original else []
    if len(rows) < 2:
        return ""
    speeds = [f"{row.test} {row.figures['tokens_per_second'].mean:.0f}" for row in rows]
    return f"tokens per second of all samples together, by {result.name}: {', '.join(speeds)}"


def details(result: ModelResult) -> Iterator[Table]:
    """Yields the tables of strategies, experts and published results."""
    if result.strategies is not None:
        bench = replace(result.strategies, model=result.name)
        yield replace(reason_tables.table(bench), title=reason_tables.title(bench))
    if result.experts is not None:
        pruned = replace(result.experts, model=result.name)
        yield replace(experts_tables.table(pruned), title=experts_tables.title(pruned))
    if found := claims(result):
        rows = [(each.claim, each.verdict) for each in found]
        yield Table.of(left("ordering", "verdict"), rows, "published orderings, and whether they are seen here")


def title(result: ModelResult) -> str:
    words = f"{result.name}: {counted(len(result.files), 'file')} against {result.against}"
    questions = max((len(file.answers.solved) for file in result.files if file.answers), default=0)
    return words if not questions else f"{words}, {counted(questions, 'question')} of {result.suite}"


def warnings(bench: AllBench) -> list[str]:
    """Returns what a reader of the tables must know, in sentences."""
    notes = [f"{model} was not measured: {error.message}" for model, error in bench.failed]
    notes += [f"{result.name}, {what}: {why}" for result in bench.results for what, why in result.left_out]
    if bench.interrupted:
        notes.append("stopped: repeat the command to resume")
    return notes


def disturbances(bench: AllBench) -> str:
    """Returns a sentence about the load of other work; "" without measurements."""
    loads = sorted(row.conditions.load for row in bench.rows)
    if not loads:
        return ""
    doubtful = sum(bool(row.conditions.disturbed) for row in bench.rows)
    middle = loads[len(loads) // 2]
    return (
        f"other work took {100 * middle:.0f} % of the processor in the median, {100 * loads[-1]:.0f} % at most; "
        f"{doubtful} of {counted(len(loads), 'measurement')} were disturbed"
    )


def as_markdown(bench: AllBench, command: str, date: str, note: str = "") -> str:
    """Returns a document with all models and their  `note`: a text by the user."""
    parts = ["# What files, strategies and pruning are worth", "", f"    {command}", ""]
    parts += [f"Made {date} by this command{_where(bench)}. If it is interrupted, repeat it to resume.", ""]
    parts += [note, ""] if note else []
    if words := disturbances(bench):
        parts += [
            f"{words[0].upper()}{words[1:]}: this affects the speeds, but not memory, accuracy or KLD.",
            "",
        ]
    parts += [f"{LEGEND[0].upper()}{LEGEND[1:]}.", ""]
    notes = warnings(bench)
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
    yield _about(result)
    yield from ("", *all_figures(result).markdown())
    if votes := votes_of_model(result):
        yield from ("", f"{votes[0].upper()}{votes[1:]}.")
    yield from _claims_section(result)
    if result.strategies is not None:
        named = replace(result.strategies, model=result.name)  # without its folder
        yield from ("", f"### {reason_tables.title(named)}", "", *reason_tables.section(named))
    if result.experts is not None:
        yield from ("", *_experts_section(result))
    yield ""


def _claims_section(result: ModelResult) -> Iterator[str]:
    found = claims(result)
    if not found:
        return
    sources = list(dict.fromkeys(each.source for each in found))
    yield from ("", "### Are the published orderings seen here?", "")
    rows = [
        (each.claim, f"{each.published} [{sources.index(each.source) + 1}]", each.measured, each.verdict)
        for each in found
    ]
    yield from Table.of(_CLAIMS, rows).markdown()
    yield ""
    yield from (f"{number}. {source}" for number, source in enumerate(sources, 1))
    yield from (
        "",
        "*seen*: the whole 95 % interval of the measured difference is on the published side. *not seen*: it is on the "
        "other side. *undecided*: more measurements are needed. Differences of accuracy are over the same questions. "
        "For differences of KLD, errors are taken as independent.",
    )


def _about(result: ModelResult) -> str:
    """Returns how the model was measured, in sentences."""
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
            "All other files were made from this model. Types that need an importance matrix have one from "
            f"{IMATRIX_CHUNKS} x 512 tokens of the built-in calibration text. The loss is measured on another text."
        )
        if result.source_bits < _ORIGINAL_BITS:
            notes.append(
                f"The model's own weights were quantized before, to {result.source_bits:.2f} bits. These losses do not "
                "include that first loss."
            )
    return " ".join(notes)


def _experts_section(result: ModelResult) -> Iterator[str]:
    assert result.experts is not None
    bench = replace(result.experts, model=result.name)
    words = experts_tables.title(bench)
    yield from (f"### {words[0].upper()}{words[1:]}", "", f"{experts_tables.conditions(bench)}.", "")
    yield from experts_tables.table(bench).without_first().markdown()
    yield ""
    yield from (f"- {each}" for each in (*experts_tables.findings(bench), *experts_tables.warnings(bench)))
    yield f"- {experts_tables.LEGEND}."
    yield (
        "- own: experts chosen by the task's own profile; merged: by the profiles of all tasks; other: by another "
        "task's profile; random: at random, with three seeds."
    )


def _quality(file: FileResult, name: str) -> str:
    return "" if file.quality is None else plus_minus(file.quality.figures[name])


def plus_minus(figure: Figure) -> str:
    """Returns '0.0653 ±0.0017', with two digits of the standard error; '0' for a zero without error."""
    error = figure.error or 0.0
    if error <= 0:
        return f"{figure.mean:.4g}"
    digits = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{figure.mean:.{digits}f} ±{error:.{digits}f}"


def _row(file: FileResult, test: str) -> Measurement | None:
    return next((row for row in file.speed if row.test == test), None)


def _speed(file: FileResult, test: str) -> str:
    row = _row(file, test)
    if row is None:
        return ""
    figure = row.figures["tokens_per_second"]
    error = "" if figure.error is None else f" ±{figure.error:.0f}"
    return f"{figure.mean:.0f}{error}{DOUBTFUL if row.conditions.disturbed else ''}"


def _memory(file: FileResult, name: str) -> str:
    row = _row(file, "memory")
    return "" if row is None or name not in row.figures else str(ByteCount(row.figures[name].mean))
