"""Shows the result of `dsr bench quality` as tables, CSV and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from dsr.bench.kit.table import Table, csv_text, left, right
from dsr.bench.quality.rows import FileLoss, QualityBench
from runtime.base.types import ByteCount, counted

if TYPE_CHECKING:
    from quant.measure.divergence import Estimate

_DISTRIBUTION = ("median", "90 %", "95 %", "99 %", "largest")
# For readers who see the tables for the first time.
# A model that knows a kind of text guesses its next token as if among fewer tokens: 5 to 60 in published tables.
_FOREIGN = 200.0
LEGEND = (
    "KLD: KL divergence, nats per token; same top: how often both find the same token most likely; change: change of "
    "the probability of the text's tokens (root mean square); median to largest: the KLD of single tokens; "
    "ln ratio: logarithm of the ratio of the perplexities; ±: standard error"
)


def title(bench: QualityBench) -> str:
    reference = bench.reference
    read = f"{counted(reference.chunks, 'chunk')} of {reference.context} tokens"
    if reference.whole:
        read = counted(reference.chunks, "whole conversation")
    return (
        f"{counted(len(bench.measured), 'file')} against {short(reference.name)}, {read} of {reference.text}: "
        f"{counted(reference.tokens, 'token')} scored"
    )


def reference_perplexity(bench: QualityBench) -> str:
    perplexity = bench.reference_perplexity
    foreign = "; this text is foreign to it, so the number says little" if perplexity.value > _FOREIGN else ""
    return f"perplexity of {short(bench.reference.name)}: {plus_minus(perplexity)}{foreign}"


def table(bench: QualityBench) -> Table:
    columns = (*left("model"), *right("size", "bpw", "perplexity", "KLD", "same top", "change"))
    rows = [
        (
            short(each.model),
            str(each.size),
            f"{each.bits_per_weight:.2f}",
            plus_minus(each.report.perplexity),
            plus_minus(each.report.kld),
            _share(each.report.same_top.value),
            _share(each.report.probability_rms.value),
        )
        for each in bench.measured
    ]
    return Table.of(columns, rows)


def details(bench: QualityBench) -> Table:
    columns = (*left("model"), *right(*_DISTRIBUTION, "ln ratio"))
    rows = [
        (short(each.model), *_distribution(each), plus_minus(each.report.log_ratio, sign=True))
        for each in bench.measured
    ]
    return Table.of(columns, rows)


def warnings(bench: QualityBench) -> Sequence[str]:
    """Returns what a reader of the table must know, in sentences."""
    notes = [f"{short(model)} was not measured: {error.message}" for model, error in bench.failed]
    calibrated_on_text = [short(each.model) for each in bench.measured if each.calibrated_on_text]
    if calibrated_on_text:
        notes.append(f"calibrated on this text, so the loss looks too small: {', '.join(calibrated_on_text)}")
    if bench.interrupted:
        notes.append(f"stopped after {counted(len(bench.measured), 'file')}")
    return notes


def about_base(bench: QualityBench) -> str:
    """Returns the size of the base file and the meaning of figures measured with it; "" without a base file."""
    if bench.base_size is None:
        return ""
    size = f"{ByteCount(bench.base_size)}, {100 * bench.base_share:.1f} % of the size of llama-perplexity's"
    if bench.reference.base == "whole":
        return f"base file: {size}; the figures above are from the whole output, not from the file"
    bounds = ", ".join(plus_minus(each.report.kld_bound) for each in bench.measured if each.report.kld_bound)
    return (
        f"base file: {size}. It has the most likely tokens and only the sum of the others, so the KLD is an unbiased "
        f"estimate. The KLD is at least {bounds}; median to largest are lower bounds too. There are no upper bounds"
    )


def as_csv(bench: QualityBench) -> str:
    """Returns CSV with the figures and standard errors that `--json` has."""
    shared = {"against": bench.reference.name, "text": bench.reference.text, "context": bench.reference.context}
    rows = [{**each.json(), **shared, "base": bench.reference.base} for each in bench.measured]
    return csv_text(rows)


def as_markdown(bench: QualityBench, command: str) -> str:
    """Returns a document with the command, the conditions, the table and the legend."""
    more = Table.of(right(*(f"KLD {name}" for name in _DISTRIBUTION), "ln ratio"), details(bench).without_first().rows)
    conditions = bench.measured[0].conditions
    notes = [*warnings(bench), *filter(None, [about_base(bench)])]
    return "\n".join(
        [
            f"# {title(bench)}",
            "",
            f"    {command}",
            "",
            f"{reference_perplexity(bench)}. {conditions.processor}, {counted(conditions.cores, 'core')}, "
            f"dsr {conditions.dsr}, engine {conditions.engine}.",
            "",
            *table(bench).join(more).markdown(),
            "",
            *(f"- {each}" for each in (*notes, LEGEND)),
            "",
        ]
    )


def plus_minus(estimate: Estimate, *, sign: bool = False) -> str:
    """Returns '0.0653 ±0.0017': two digits of the standard error."""
    error = estimate.error
    digits = min(7, max(0, 1 - math.floor(math.log10(error)))) if error > 0 else 4
    return f"{estimate.value:{'+' if sign else ''}.{digits}f} ±{error:.{digits}f}"


def short(model: str) -> str:
    """Returns a reference unchanged, and a path without its folders and ending."""
    return PurePath(model).stem if model.casefold().endswith(".gguf") else model


def _distribution(each: FileLoss) -> tuple[str, ...]:
    median, at_90, at_95, at_99, _, largest = each.report.kld_percentiles
    return tuple(
        f"{value:.2e}" if abs(value) < 1e-3 else f"{value:.4f}" for value in (median, at_90, at_95, at_99, largest)
    )


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"
