"""The decision of `dsr quantize`: from a source, and a recipe or a size, to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.models.gguf_names import quant_of
from dsr.models.model import Model
from quant.plan import TOKENIZER_KEY, QuantPlan, imatrix_entries
from quant.recipe import recipe
from quant.recipe.mixtures import unquantized
from quant.recipe.recipe import AnyRecipe
from quant.sources.source import Source
from quant.write.execute import refuse_requantizing
from runtime.base.errors import DoesNotFit, EngineFailed, Incompatible, UsageError
from runtime.base.events import Notice
from runtime.base.run import Run
from runtime.base.shard_names import shard_of
from runtime.base.types import ByteCount, counted
from runtime.machine.host import probe
from runtime.machine.machine import usable

if TYPE_CHECKING:
    from quant.measure.imatrix import Imatrix
    from quant.to_a_size.sensitivity import Sensitivity
    from quant.to_a_size.type_errors import Errors

_SENSITIVITY_CHUNKS = 10  # chunks of text that sensitivity is measured on


@dataclass(frozen=True, slots=True)
class Decision:
    """The file to write: `source` with the importance matrix that the plan needs, and the plan.

    `recipe` names the recipe or the size, `origin` the way the types were decided. `warnings` include the plan's.
    `predicted_kld` is in nats per token, None if it was not measured.
    """

    recipe: str
    source: Source
    plan: QuantPlan
    warnings: tuple[str, ...]
    origin: str
    predicted_kld: float | None = None

    def with_plan(self, plan: QuantPlan) -> Decision:
        """The same decision for a plan with the same types; the plan's new warnings are added."""
        new = tuple(warning for warning in plan.warnings if warning not in self.plan.warnings)
        return replace(self, plan=plan, warnings=(*self.warnings, *new))

    def json(self, files: Sequence[Path] = ()) -> dict[str, Any]:
        """The body of `dsr.quantize/1`; `files` are those written."""
        return {
            "bytes": int(self.plan.bytes),
            "bpw": round(self.plan.bits_per_weight, 4),
            "parameters": self.plan.parameters,
            "predicted_kld": self.predicted_kld,
            "recipe": self.recipe,
            "files": [str(file) for file in files],
            "warnings": list(self.warnings),
            "tensors": [
                {
                    "name": tensor.name,
                    "from": tensor.stored,
                    "to": tensor.target,
                    "rule": tensor.rule,
                    "round": tensor.rounding or "off",
                    "bytes": tensor.bytes,
                }
                for tensor in self.plan.tensors
            ],
        }


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


def decide(source: Source, chosen: AnyRecipe, imatrix: Path | None = None) -> Decision:
    """Returns the file that a recipe makes.

    Raises UsageError (the recipe), NotFound, BadModelFile, Incompatible (the matrix)."""
    warnings: list[str] = []
    if all(entry.key != TOKENIZER_KEY for entry in source.metadata):
        warnings.append("the tokenizer is not here: its vocabulary will add some MiB to the size")
    if imatrix is not None:
        source, unseen = with_imatrix(source, imatrix)
        warnings += [unseen] if unseen else []
    plan = recipe.plan(chosen, source)
    if source.importance is None and plan.needs_imatrix:
        warnings.append("types this low need an importance matrix: --imatrix, or --round, which makes one")
    return Decision(chosen.name, source, plan, (*warnings, *plan.warnings), f"the recipe {chosen.name}")


def decide_size(
    source: Source, target: SizeTarget, run: Run, imatrix: Path | None = None, *, allow_requantize: bool = True
) -> Decision:
    """Returns the best file of a size. Errors and sensitivity are measured, or read from the cache. All weights are
    needed.

    All checks that need no measurement come first. Raises DoesNotFit (no types make it so small),
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
        refuse_requantizing(smallest)
    errors = measure_errors(weighted, run)
    sensitivity = _sensitivity(weighted, whole, errors, run)
    fitted = plan_of_size(weighted, budget, errors, sensitivity)
    warnings = (*([unseen] if unseen else []), *fitted.plan.warnings)
    measured = "errors of types" if sensitivity is None else "errors of types and sensitivity"
    return Decision(
        target.name, weighted, fitted.plan, warnings, f"{measured} measured on this model", fitted.predicted_kld
    )


def budget_of(target: SizeTarget, whole: QuantPlan) -> int:
    """Returns the bytes that the file may have. `whole` is the unquantized plan. Its header and the memory for KV cache
    and compute do not depend on types."""
    if target.bytes is not None:
        return target.bytes
    if target.bits_per_weight is not None:
        header = int(whole.bytes) - sum(tensor.bytes for tensor in whole.tensors)
        return int(target.bits_per_weight * whole.parameters / 8) + header
    card = whole.card()
    if card is None:
        raise UsageError("--fit cannot tell how much memory this model needs from its header", hint="give --size")
    from runtime.placement.memory import need

    taken = need(card, target.context)
    return usable(probe().memory_available) - taken.kv_cache - taken.compute


def _sensitivity(source: Source, whole: QuantPlan, errors: Errors, run: Run) -> Sensitivity | None:
    """Returns None if the model cannot be evaluated here. Then the errors alone decide, and the plan warns of it."""
    from dsr.store.paths import cache_folder
    from quant.measure.chunks import ChunkOptions
    from quant.measure.texts import CALIBRATION
    from quant.to_a_size.sensitivity import measure
    from runtime.placement.memory import need

    card = whole.card()
    if card is None:
        return None
    available = usable(probe().memory_available)
    options = ChunkOptions(limit=_SENSITIVITY_CHUNKS)
    if need(card, options.context).total > available:
        run.listen(Notice(f"{source.name} does not fit in {available} of memory, so its sensitivity is not measured"))
        return None
    try:
        return measure(source, errors, [CALIBRATION.for_model(card)], cache_folder() / "sensitivity", options, run)
    except (DoesNotFit, EngineFailed) as error:
        run.listen(Notice(f"the sensitivity cannot be measured: {error.message}"))
        return None


def with_imatrix(source: Source, path: Path) -> tuple[Source, str | None]:
    """Returns the source with the importance matrix in the file `path`, and a warning about experts that saw no token.

    Raises NotFound, BadModelFile, Incompatible and UsageError (a matrix of another model)."""
    from quant.measure.imatrix import read

    return weighted(source, read(path), path)


def weighted(source: Source, matrix: Imatrix, path: Path) -> tuple[Source, str | None]:
    """Returns the source with an importance matrix, which came from `path`, and a warning about experts that saw no
    token. Raises as `with_imatrix`."""
    from dsr.quantize.imatrix import unseen_in_words

    importance = {
        tensor.name: values
        for tensor in source.tensors
        if (values := matrix.importance(tensor.name, unseen="mean")) is not None
    }
    if not importance:
        raise Incompatible(
            f"{path}: is for another model: it has {counted(len(matrix.entries), 'weight')}, none of this model",
            hint="make one of this model: dsr imatrix",
        )
    added = imatrix_entries(str(path), matrix.datasets, len(matrix.entries), matrix.chunk_count)
    return source.with_importance(importance, added), unseen_in_words(matrix.coverage())


def name_of(model: Model) -> str:
    """Returns the name of a model for a new file: a GGUF file's name without its quantization."""
    if model.embedded:
        return "nano"
    stem = Path(shard_of(model.path.name)[0]).name.removesuffix(".gguf")
    label = quant_of(model.path.name)
    return stem[: -len(label)].rstrip("-._") or stem if label and stem.upper().endswith(label) else stem
