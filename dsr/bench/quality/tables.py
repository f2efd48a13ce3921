"""A bench of quality as tables, as CSV and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from dsr.bench.kit.table import Table, csv_text, left, right
from dsr.bench.quality.losses import FileLoss, QualityBench
from runtime.base.types import ByteCount, counted

if TYPE_CHECKING:
    from quant.measure.divergence import Estimate

_DISTRIBUTION = ("median", "90 %", "95 %", "99 %", "largest")
# Below the tables, for whoever sees them for the first time.
LEGEND = (
    "KLD: nats per token; same top: where both find the same token likeliest; change: root mean square of what the "
    "probabilities of the text's own tokens changed by; median to largest: of the KLD over tokens; ln ratio: of the "
    "perplexities; ±: one standard error"
)


def title(bench: QualityBench) -> str:
    against = bench.against
    files, read = counted(len(bench.measured), "file"), counted(against.chunks, "chunk")
    return (
        f"{files} against {short(against.name)}, {read} of {against.context} tokens of {against.text}: "
        f"{counted(against.tokens, 'token')} scored"
    )


def reference(bench: QualityBench) -> str:
    return f"perplexity of {short(bench.against.name)}: {plus_minus(bench.reference_perplexity)}"


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
    """What a reader of the table must know."""
    notes = [f"{short(model)} was not measured: {error.message}" for model, error in bench.failed]
    calibrated_on_text = [short(each.model) for each in bench.measured if each.calibrated_on_text]
    if calibrated_on_text:
        notes.append(f"calibrated on this text, which flatters it: {', '.join(calibrated_on_text)}")
    if bench.interrupted:
        notes.append(f"stopped after {counted(len(bench.measured), 'file')}")
    return notes


def about_base(bench: QualityBench) -> str:
    """What the file of the base is, and what figures that were measured with it mean; "" without one."""
    if bench.base_size is None:
        return ""
    size = f"{ByteCount(bench.base_size)}, {100 * bench.base_share:.1f} % of llama-perplexity's"
    if bench.against.base == "whole":
        return f"the base file has {size}; the figures above are from the whole output, not from it"
    bounds = ", ".join(plus_minus(each.report.kld_bound) for each in bench.measured if each.report.kld_bound)
    return (
        f"the base file ({size}) keeps the likeliest tokens and the mass of the others, so the KLD is an estimate from "
        f"one drawn token of the others, without bias; it is at least {bounds}, and median to largest are such lower "
        "bounds too; nothing is bounded from above"
    )


def as_csv(bench: QualityBench) -> str:
    """Returns CSV with the figures and standard errors that `--json` has."""
    shared = {"against": bench.against.name, "text": bench.against.text, "context": bench.against.context}
    rows = [{**each.json(), **shared, "base": bench.against.base} for each in bench.measured]
    return csv_text(rows)


def as_markdown(bench: QualityBench, command: str) -> str:
    """A document of its own: the command, the conditions, the table, and how to read it."""
    more = Table.of(right(*(f"KLD {name}" for name in _DISTRIBUTION), "ln ratio"), details(bench).without_first().rows)
    conditions = bench.measured[0].conditions
    notes = [*warnings(bench), *filter(None, [about_base(bench)])]
    return "\n".join(
        [
            f"# {title(bench)}",
            "",
            f"    {command}",
            "",
            f"{reference(bench)}. {conditions.processor}, {counted(conditions.cores, 'core')}, dsr {conditions.dsr}, "
            f"engine {conditions.engine}.",
            "",
            *table(bench).joined(more).markdown(),
            "",
            *(f"- {each}" for each in (*notes, LEGEND)),
            "",
        ]
    )


def plus_minus(estimate: Estimate, *, sign: bool = False) -> str:
    """With two digits of the standard error: '0.0653 ±0.0017'."""
    error = estimate.error
    digits = min(7, max(0, 1 - math.floor(math.log10(error)))) if error > 0 else 4
    return f"{estimate.value:{'+' if sign else ''}.{digits}f} ±{error:.{digits}f}"


def short(model: str) -> str:
    """A reference as it is, a path without its folders and its ending."""
    return PurePath(model).stem if model.casefold().endswith(".gguf") else model


def _distribution(each: FileLoss) -> tuple[str, ...]:
    median, at_90, at_95, at_99, _, largest = each.report.kld_percentiles
    return tuple(
        f"{value:.2e}" if abs(value) < 1e-3 else f"{value:.4f}" for value in (median, at_90, at_95, at_99, largest)
    )


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"
