"""`dsr quantize --bpw, --size, --fit`: how large the file may be, and the plan that loses least within that size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.quantize.decide import Decision, with_imatrix
from dsr.quantize.plan_summary import card_of
from dsr.store.paths import cache_folder
from quant.measure.chunks import ChunkOptions, Text
from quant.measure.texts import CALIBRATION
from quant.plan import QuantPlan
from quant.recipe.mixtures import unquantized
from quant.sources.gguf_source import GgufSource
from quant.sources.source import Source
from quant.write import execute
from quant.write.scratch import scratch_folder
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import DoesNotFit, EngineFailed, UsageError
from runtime.base.events import Notice
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.machine.host import probe
from runtime.machine.machine import usable
from runtime.placement.memory import need

if TYPE_CHECKING:
    from quant.measure.divergence import Report
    from quant.to_a_size.sensitivity import Sensitivity
    from quant.to_a_size.type_errors import Errors

_CHUNKS = 10  # of text that sensitivity is measured on


@dataclass(frozen=True, slots=True)
class SizeTarget:
    """The size of the file, as one of three: bits per weight, bytes, or `fit`: all that this machine can run with
    `context` tokens."""

    bits_per_weight: float | None = None
    bytes: int | None = None
    fit: bool = False
    context: int = 4096

    def __post_init__(self) -> None:
        given = (self.bits_per_weight is not None) + (self.bytes is not None) + self.fit
        if given != 1:
            raise UsageError("--bpw, --size and --fit exclude one another")
        if self.bits_per_weight is not None and not 0 < self.bits_per_weight <= 32:
            raise UsageError(f"{self.bits_per_weight} bits per weight are not possible", hint="as in --bpw 3.5")

    @property
    def name(self) -> str:
        """The size as a part of a file's name: "3.5bpw", "12.0GiB", "fit"."""
        if self.bits_per_weight is not None:
            return f"{self.bits_per_weight:g}bpw"
        return "fit" if self.bytes is None else str(ByteCount(self.bytes)).replace(" ", "")


def decide_size(
    source: Source, target: SizeTarget, run: Run, imatrix: Path | None = None, *, allow_requantize: bool = True
) -> Decision:
    """The best file of a size. Errors and sensitivity are measured, or read from the cache. All weights are needed.

    Whatever can be refused without measuring is refused before. Raises DoesNotFit (no types make it so small),
    UsageError (weights are quantized already), NotFound, BadModelFile, Incompatible (the matrix), Aborted.
    """
    from quant.to_a_size.allocate import check_budget, plan_of_size, smallest_plan
    from quant.to_a_size.type_errors import measure_errors

    whole = unquantized(source)
    weighted, unseen = (source, None) if imatrix is None else with_imatrix(source, imatrix)
    budget = budget_of(target, whole)
    if budget >= whole.bytes:
        allowed = ByteCount(budget)
        run.listen(Notice(f"{source.name} has {whole.bytes} as it is, and {allowed} are allowed: it is kept so"))
        return Decision(target.name, source, whole, whole.warnings, "the weights as they were", 0.0)
    smallest = smallest_plan(weighted)
    check_budget(smallest, budget, weighted)
    if not allow_requantize:
        execute.refuse_requantizing(smallest)
    errors = measure_errors(weighted, run)
    sensitivity = _sensitivity(weighted, whole, errors, run)
    fitted = plan_of_size(weighted, budget, errors, sensitivity)
    warnings = (*([unseen] if unseen else []), *fitted.plan.warnings)
    measured = "errors of types" if sensitivity is None else "errors of types and sensitivity"
    return Decision(
        target.name, weighted, fitted.plan, warnings, f"{measured} measured on this model", fitted.predicted_kld
    )


def budget_of(target: SizeTarget, whole: QuantPlan) -> int:
    """Bytes of the file. `whole` is the unquantized plan: its header, and the memory that running takes besides the
    weights, do not depend on types."""
    if target.bytes is not None:
        return target.bytes
    if target.bits_per_weight is not None:
        header = int(whole.bytes) - sum(tensor.bytes for tensor in whole.tensors)
        return int(target.bits_per_weight * whole.parameters / 8) + header
    card = card_of(whole)
    if card is None:
        raise UsageError("--fit needs to know what running takes, and the header does not tell", hint="give --size")
    taken = need(card, target.context)
    return usable(probe().memory_available) - taken.kv_cache - taken.compute


def compare_with_source(source: Source, out: Path, text: Text, run: Run) -> Report:
    """The losses of the file `out` on a text. Original weights are first written to a temporary GGUF next to it.

    Raises UsageError (too little text), DoesNotFit, EngineFailed, Aborted."""
    from quant.measure.divergence import compare

    if isinstance(source, GgufSource):
        return compare(source.files[0], out, [text], ChunkOptions(), run)
    with disk_errors(out), scratch_folder(out.parent, ".measuring-") as folder:
        base = folder / "source.gguf"
        execute.quantize(source, unquantized(source), base, run)
        return compare(base, out, [text], ChunkOptions(), run)


def _sensitivity(source: Source, whole: QuantPlan, errors: Errors, run: Run) -> Sensitivity | None:
    """None where the model cannot be evaluated here: then the errors alone decide, and the plan says so."""
    from quant.to_a_size.sensitivity import measure

    card = card_of(whole)
    if card is None:
        return None
    available = usable(probe().memory_available)
    options = ChunkOptions(limit=_CHUNKS)
    if need(card, options.context).total > available:
        run.listen(Notice(f"{source.name} does not fit in {available} of memory, so its sensitivity is not measured"))
        return None
    try:
        return measure(source, errors, [CALIBRATION.for_model(card)], cache_folder() / "sensitivity", options, run)
    except (DoesNotFit, EngineFailed) as error:
        run.listen(Notice(f"the sensitivity cannot be measured: {error.message}"))
        return None


def report_json(report: Report) -> dict[str, object]:
    """The report for JSON: each mean with its standard error."""
    found: dict[str, object] = {"tokens": report.tokens}
    for name in ("base_perplexity", "perplexity", "log_ratio", "kld", "same_top"):
        estimate = getattr(report, name)
        found[name] = {"value": estimate.value, "error": estimate.error}
    return found
