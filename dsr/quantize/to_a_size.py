"""`dsr quantize --bpw, --size, --fit`: what the largest file may be, and the plan that loses least within it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.quantize.imatrix import unseen_in_words
from dsr.quantize.quantize import Decided, Weights, card_of, importance_of
from dsr.store.paths import cache_folder
from quant.measure.chunks import Reading, Text
from quant.measure.texts import CALIBRATION
from quant.plan import QuantPlan, imatrix_entries
from quant.sources.gguf_source import GgufSource
from quant.sources.source import KeyValue
from quant.write import execute
from quant.write.scratch import scratch_folder
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import DoesNotFit, EngineFailed, UsageError
from runtime.base.events import Listener, Notice, ignore
from runtime.base.files import write_atomically
from runtime.base.run import Stop
from runtime.base.types import ByteCount
from runtime.machine.host import probe, usable_threads
from runtime.machine.machine import usable
from runtime.placement.memory import need

if TYPE_CHECKING:
    from quant.measure.divergence import Report
    from quant.to_a_size.sensitivity import Sensitivity
    from quant.to_a_size.type_errors import Errors

_CHUNKS = 10  # of text that sensitivity is measured on
_MEASURED = "errors of types and sensitivity measured on this model"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One of three: bits per weight, bytes of the file, or (`fit`) what this machine runs with `context` tokens."""

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
        """For the name of the file."""
        if self.bits_per_weight is not None:
            return f"{self.bits_per_weight:g}bpw"
        return "fit" if self.bytes is None else str(ByteCount(self.bytes)).replace(" ", "")


def decide_size(
    weights: Weights,
    wanted: Wanted,
    imatrix: Path | None = None,
    *,
    allow_requantize: bool = True,
    threads: int | None = None,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> Decided:
    """Measure, or take from the cache what was measured before, and plan. The whole weights are needed.

    What can be refused without measuring is refused before. Raises DoesNotFit (no types make it so small), UsageError
    (weights are quantized already), NotFound, BadModelFile, Incompatible (the matrix), Aborted.
    """
    from quant.measure.imatrix import read
    from quant.to_a_size.allocate import check_budget, plan_of_size, smallest_plan, whole_plan
    from quant.to_a_size.type_errors import measure_errors

    source = weights.source
    importance: execute.Importance = {}
    added: tuple[KeyValue, ...] = ()
    unseen = None
    if imatrix is not None:
        matrix = read(imatrix)
        importance = importance_of(matrix, source, imatrix)
        added = imatrix_entries(str(imatrix), matrix.datasets, len(matrix.entries), matrix.chunk_count)
        unseen = unseen_in_words(matrix.coverage())
    whole = whole_plan(source.tensors, metadata=source.metadata)
    budget = budget_of(wanted, whole)
    if budget >= whole.bytes:
        listen(Notice(f"{weights.name} has {whole.bytes} as it is, and {ByteCount(budget)} are allowed: it is kept so"))
        return Decided(wanted.name, whole, {}, whole.warnings, "the weights as they were", 0.0)
    names = None if imatrix is None else frozenset(importance)
    smallest = smallest_plan(source.tensors, names, metadata=source.metadata, added=added)
    check_budget(smallest, budget, names)
    execute.check(source, smallest, importance, allow_requantize=allow_requantize)
    errors = measure_errors(source, importance, threads=threads or usable_threads(), stop=stop, listen=listen)
    sensitivity = _sensitivity(weights, whole, errors, importance, threads=threads, stop=stop, listen=listen)
    fitted = plan_of_size(source.tensors, budget, errors, sensitivity, names, metadata=source.metadata, added=added)
    warnings = (*([unseen] if unseen else []), *fitted.plan.warnings)
    origin = "errors of types measured on this model" if sensitivity is None else _MEASURED
    return Decided(wanted.name, fitted.plan, importance, warnings, origin, fitted.predicted_kld)


def budget_of(wanted: Wanted, whole: QuantPlan) -> int:
    """Bytes of the file. `whole` is the source unquantized: its header and what running takes besides weights do not
    depend on types."""
    if wanted.bytes is not None:
        return wanted.bytes
    if wanted.bits_per_weight is not None:
        header = int(whole.bytes) - sum(tensor.bytes for tensor in whole.tensors)
        return int(wanted.bits_per_weight * whole.parameters / 8) + header
    card = card_of(whole)
    if card is None:
        raise UsageError("--fit needs to know what running takes, and the header does not tell", hint="give --size")
    taken = need(card, wanted.context)
    return usable(probe().memory_available) - taken.kv_cache - taken.compute


def compare_with_source(
    weights: Weights,
    out: Path,
    text: Text,
    *,
    threads: int | None = None,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> Report:
    """What the file `out` lost on a text. Original weights are written to a temporary GGUF beside it first.

    Raises UsageError (too little text), DoesNotFit, EngineFailed, Aborted."""
    from quant.measure.divergence import compare
    from quant.to_a_size.sensitivity import kept_plan

    texts = [text]
    if isinstance(weights.source, GgufSource):
        return compare(weights.source.files[0], out, texts, Reading(threads=threads), stop=stop, listen=listen)
    with disk_errors(out), scratch_folder(out.parent, ".measuring-") as folder:
        base = folder / "source.gguf"
        execute.quantize(weights.source, kept_plan(weights.source), base, threads=threads, stop=stop, listen=listen)
        return compare(base, out, texts, Reading(threads=threads), stop=stop, listen=listen)


def _sensitivity(
    weights: Weights,
    whole: QuantPlan,
    errors: Errors,
    importance: execute.Importance,
    *,
    threads: int | None,
    stop: Stop | None,
    listen: Listener,
) -> Sensitivity | None:
    """None where the model cannot be evaluated here: then the errors alone decide, and the plan says so."""
    from quant.to_a_size.sensitivity import measure

    card = card_of(whole)
    if card is None:
        return None
    available = usable(probe().memory_available)
    reading = Reading(most=_CHUNKS, threads=threads)
    if need(card, reading.context).total > available:
        listen(Notice(f"{weights.name} does not fit in {available} of memory, so its sensitivity is not measured"))
        return None
    cache = cache_folder() / "sensitivity"
    try:
        return measure(
            weights.source, errors, importance, [CALIBRATION.for_model(card)], cache, weights.name,
            reading, stop=stop, listen=listen,
        )  # fmt: skip
    except (DoesNotFit, EngineFailed) as error:
        listen(Notice(f"the sensitivity cannot be measured: {error.message}"))
        return None


def check_recipe_place(path: Path, *, force: bool) -> None:
    """Raise UsageError for a recipe that would be overwritten, and for a name that is no file's."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give the name of the file to write: --save-recipe FILE")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already", hint="give another name, or --force to replace it")


def write_recipe(path: Path, decided: Decided, weights: Weights) -> None:
    """The plan as a recipe that gives the same file again. Raises DsrError (no place), DoesNotFit (no room)."""
    from quant.recipe.saved import recipe_text

    said = f"{weights.name} at {decided.plan.bits_per_weight:.2f} bits per weight"
    with disk_errors(path):
        write_atomically(path, recipe_text(decided.plan, said, f"[C] dsr quantize: {decided.origin}").encode())


def in_figures(report: Report) -> dict[str, object]:
    """For JSON: each mean with its standard error."""
    found: dict[str, object] = {"tokens": report.tokens}
    for name in ("base_perplexity", "perplexity", "log_ratio", "kld", "same_top"):
        estimate = getattr(report, name)
        found[name] = {"value": estimate.value, "error": estimate.error}
    return found
