"""The decision of `dsr quantize --size`, `--bpw` and `--fit`: the best file of a size, from measured losses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.quantize.decide import Decision, weighted, with_imatrix
from quant.plan import Effort, QuantPlan
from quant.recipe.mixtures import unquantized
from quant.sources.source import Source
from quant.write.execute import refuse_requantizing
from runtime.base.errors import DoesNotFit, EngineFailed, UsageError
from runtime.base.events import Notice
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.machine.host import probe
from runtime.machine.machine import usable

if TYPE_CHECKING:
    from quant.round.moments import Moments
    from quant.to_a_size.allocate import Fitted
    from quant.to_a_size.losses import Losses

_TOKENS = 2048  # of whole conversations that a divergence is measured on
_CONTEXT = 2048  # tokens of context that the model is opened with


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


@dataclass(frozen=True, slots=True)
class SizeDecision:
    """The decision, and the second moments that it corrects errors with; None: errors are not corrected."""

    decision: Decision
    moments: Moments | None = None


def decide_size(
    source: Source,
    target: SizeTarget,
    run: Run,
    imatrix: Path | None = None,
    *,
    effort: Effort | None = "off",
    folder: Path | None = None,
    allow_requantize: bool = True,
) -> SizeDecision:
    """Returns the best file of a size. Everything is measured, or read from the cache. All weights are needed.

    `effort` is how errors of rounding will be corrected; None: "best" where second moments can be collected. `folder`
    has the moments; None: they are collected. All checks that need no measurement come first. Raises DoesNotFit (no
    types make it so small), UsageError (weights are quantized already), NotFound, BadModelFile, Incompatible (the
    matrix, the moments), Aborted.
    """
    from quant.to_a_size.allocate import check_budget, smallest_plan
    from quant.to_a_size.losses import measure_losses

    whole = unquantized(source)
    given, unseen = (source, None) if imatrix is None else with_imatrix(source, imatrix)
    budget = budget_of(target, whole)
    if budget >= whole.bytes:
        allowed = ByteCount(budget)
        run.listen(Notice(f"{source.name} has {whole.bytes} as it is, and {allowed} are allowed: it is kept so"))
        return SizeDecision(Decision(target.name, source, whole, whole.warnings, "the weights as they were", 0.0))
    smallest = smallest_plan(given, weighted=effort != "off" and imatrix is None)
    check_budget(smallest, budget, given)
    if not allow_requantize:
        refuse_requantizing(smallest)
    moments = _moments(source, effort, folder, run)
    if moments is not None and imatrix is None:
        from dsr.quantize.moments import importance_of

        given, unseen = weighted(source, importance_of(moments), moments.folder)
    losses = measure_losses(given, moments, _cache() / "losses", run)
    fitted = _fitted(given, whole, budget, losses, moments, run)
    warnings = (*([unseen] if unseen else []), *fitted.plan.warnings)
    measured = "losses of types" if fitted.predicted_kld is None else "losses of types and their divergence"
    decision = Decision(
        target.name, given, fitted.plan, warnings, f"{measured} measured on this model", fitted.predicted_kld
    )
    return SizeDecision(decision, moments)


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


def _moments(source: Source, effort: Effort | None, folder: Path | None, run: Run) -> Moments | None:
    """The second moments for an effort; None where errors are not corrected."""
    from dsr.quantize.moments import moments_of

    if effort == "off":
        return None
    try:
        return moments_of(source, folder, run)
    except (DoesNotFit, EngineFailed) as error:
        if effort is not None or folder is not None:
            raise
        run.listen(Notice(f"errors of rounding are not corrected: {error.message}"))
        return None


def _fitted(source: Source, whole: QuantPlan, budget: int, losses: Losses, moments: Moments | None, run: Run) -> Fitted:
    """Returns the best plan; one by the losses alone, with a warning, if the model cannot be evaluated here."""
    from quant.measure.texts import CALIBRATION
    from quant.round.plan import plan_rounding
    from quant.to_a_size.allocate import plan_of_size, smallest_plan
    from quant.to_a_size.probes import Probes
    from quant.to_a_size.search import best_of_size
    from runtime.placement.memory import need

    def rounded(plan: QuantPlan) -> QuantPlan:
        """As the losses have it."""
        if moments is None:
            return plan
        index = moments.index
        return plan_rounding(plan, "fast", datasets=index.datasets, tokens=index.tokens, weights=moments.weights)

    smallest = smallest_plan(source)
    budget -= rounded(smallest).bytes - smallest.bytes  # the keys that say how a file was rounded
    by_losses = plan_of_size(source, budget, losses)
    card = whole.card()
    if card is None:
        return by_losses
    available = usable(probe().memory_available)
    if need(card, _CONTEXT).total > available:
        run.listen(Notice(f"{source.name} does not fit in {available} of memory, so its divergence is not measured"))
        return by_losses
    try:
        with Probes(source, moments, CALIBRATION.each_for_model(card), _TOKENS, _cache() / "probes", run) as probes:
            return best_of_size(source, budget, losses, probes, rounded, run)
    except (DoesNotFit, EngineFailed) as error:
        run.listen(Notice(f"the divergence cannot be measured: {error.message}"))
        return by_losses


def _cache() -> Path:
    from dsr.store.paths import cache_folder

    return cache_folder() / "sizes"
