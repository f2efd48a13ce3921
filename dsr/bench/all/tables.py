"""`dsr bench all` as tables for a terminal: a row for each file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from dsr.bench.all.claims import claims
from dsr.bench.all.request import SPEED_OF_FILE
from dsr.bench.all.result import ITSELF, AllBench, FileResult, ModelResult
from dsr.bench.experts import tables as experts_report
from dsr.bench.kit.table import Table, left, right
from dsr.bench.reason import tables as reason_report
from dsr.store.measurement import Figure, Measurement
from runtime.base.types import ByteCount, counted

PROMPT = f"pp{SPEED_OF_FILE.prompts[0]}"
DECODED = f"tg{SPEED_OF_FILE.generated[0]}"
VOTES = f"votes {SPEED_OF_FILE.votes[0]}"
DOUBTFUL = "†"

_FILE = left("file")
_LOSS = right("size", "bits", "KLD", "perplexity", "same top", "right", "95 %")
_COST = right(PROMPT, DECODED, VOTES, "memory", "predicted")
# Below the tables, for whoever sees them for the first time.
LEGEND = (
    "bits: per weight; KLD: from the reference, nats per token; same top: percent of tokens where both find the same "
    f"likeliest; right: percent, drawn greedily, with Wilson's 95 % interval; {PROMPT}, {DECODED}, {VOTES}: tokens per "
    f"second, as in dsr bench speed; memory: a process's peak; ±: one standard error; {DOUBTFUL}: other work disturbed "
    "it"
)


def losses(result: ModelResult) -> Table:
    """Returns size and quality, a row for each file, without the columns in which nothing was measured."""
    return _losses(result).without_empty()


def costs(result: ModelResult) -> Table:
    """Returns speed and memory, a row for each file, without the columns in which nothing was measured."""
    return _costs(result).without_empty()


def all_figures(result: ModelResult) -> Table:
    """Returns the columns of both tables."""
    return _losses(result).joined(_costs(result).without_first()).without_empty()


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
    """How votes scale with the model itself, in words; "" where that was not measured."""
    original = result.file(ITSELF)
    rows = [row for row in original.speed if row.test.startswith("votes")] if original else []
    if len(rows) < 2:
        return ""
    speeds = [f"{row.test} {row.figures['tokens_per_second'].mean:.0f}" for row in rows]
    return f"votes drawn at once by {result.name}, tokens per second together: {', '.join(speeds)}"


def more(result: ModelResult) -> Iterator[Table]:
    """Yields what was measured with the model itself."""
    if result.strategies is not None:
        bench = replace(result.strategies, model=result.name)
        yield replace(reason_report.table(bench), title=reason_report.title(bench))
    if result.experts is not None:
        pruned = replace(result.experts, model=result.name)
        yield replace(experts_report.table(pruned), title=experts_report.title(pruned))
    if found := claims(result):
        rows = [(each.claim, each.verdict) for each in found]
        yield Table.of(left("ordering", "verdict"), rows, "what the papers show, and whether it is seen")


def title(result: ModelResult) -> str:
    words = f"{result.name}: {counted(len(result.files), 'file')} against {result.against}"
    questions = max((len(file.answers.solved) for file in result.files if file.answers), default=0)
    return words if not questions else f"{words}, {counted(questions, 'question')} of {result.suite}"


def warnings(bench: AllBench) -> list[str]:
    """What a reader must know."""
    notes = [f"{model} was not measured: {error.message}" for model, error in bench.failed]
    notes += [f"{result.name}, {what}: {why}" for result in bench.results for what, why in result.left_out]
    if bench.interrupted:
        notes.append("stopped: the same command goes on")
    return notes


def disturbances(bench: AllBench) -> str:
    """How much other work there was while it was measured, in a sentence; "" before anything was."""
    loads = sorted(row.conditions.load for row in bench.rows)
    if not loads:
        return ""
    doubtful = sum(bool(row.conditions.disturbed) for row in bench.rows)
    middle = loads[len(loads) // 2]
    return (
        f"other work took {100 * middle:.0f} % of the processor in the median, {100 * loads[-1]:.0f} % at most; "
        f"{doubtful} of {counted(len(loads), 'measurement')} were disturbed"
    )


def _quality(file: FileResult, name: str) -> str:
    return "" if file.quality is None else plus_minus(file.quality.figures[name])


def plus_minus(figure: Figure) -> str:
    """With two digits of the standard error; '0' of what is nothing but that."""
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
