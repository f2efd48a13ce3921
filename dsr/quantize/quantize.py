"""`dsr quantize` from a request to files: open the source, decide, check, write, measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.models.library import find_weights
from dsr.quantize.check_text import check_text
from dsr.quantize.decide import Decision, decide, name_of, weighted
from dsr.quantize.size import SizeTarget, decide_size
from dsr.quantize.stages import with_stages
from quant.open_source import open_source
from quant.plan import Effort
from quant.recipe import recipe
from quant.recipe.mixtures import unquantized
from quant.recipe.overrides import NONE, Overrides
from quant.recipe.recipe import AnyRecipe, names, recipe_text, rounding_of
from quant.sources.source import GgufSource, Source
from quant.write import execute
from quant.write.output import check_place
from quant.write.rehearsal import rehearse
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import UsageError
from runtime.base.files import write_atomically
from runtime.base.run import Run

if TYPE_CHECKING:
    from quant.measure.chunks import Text
    from quant.measure.divergence import Report
    from quant.round.moments import Moments


@dataclass(frozen=True, slots=True)
class QuantizeRequest:
    """A file to make from the model `source` (a folder, a file, or a reference to a model that was pulled).

    `target` is a recipe, or a size for which the best types are measured. `out` None is NAME-RECIPE.gguf in the
    working directory. `measure` is a text file to measure the losses on, `save_recipe` a file for the plan as a recipe,
    `split_max_size` bytes of weights per file. `rounding` is the effort to correct errors of rounding (None: the
    recipe's own), `moments` the folder of second moments for it (None: collected). `pre` and `keep_mtp` are for
    original weights; `overrides` are types for single tensors. Raises UsageError for a request that contradicts itself.
    """

    source: str
    target: AnyRecipe | SizeTarget
    out: Path | None = None
    imatrix: Path | None = None
    rounding: Effort | None = None
    moments: Path | None = None
    save_recipe: Path | None = None
    measure: Path | None = None
    split_max_size: int | None = None
    pre: str | None = None
    keep_mtp: bool = False
    allow_requantize: bool = False
    force: bool = False
    dry_run: bool = False
    overrides: Overrides = NONE

    def __post_init__(self) -> None:
        if self.out is not None:
            check_name(self.out)
        if self.dry_run and self.measure is not None:
            raise UsageError("a dry run makes no file that --measure could measure")
        if self.overrides and isinstance(self.target, SizeTarget):
            raise UsageError(
                "--tensor-type, --pure and --leave-output-tensor change a recipe, and a size chooses all types",
                hint="write the chosen types with --save-recipe, then change them with --recipe FILE --tensor-type",
            )
        if self.moments is not None and self.effort == "off":
            raise UsageError("--moments serves --round alone", hint="add --round best or --round fast")

    @property
    def effort(self) -> Effort:
        """The effort to correct errors of rounding: as asked, else the recipe's own, and the best one for a size."""
        if self.rounding is not None:
            return self.rounding
        return "best" if isinstance(self.target, SizeTarget) else rounding_of(self.target)


@dataclass(frozen=True, slots=True)
class Quantization:
    """A decision about an open source, checked and ready to be carried out. A dry run has no `job`."""

    request: QuantizeRequest
    decision: Decision
    job: execute.WriteJob | None
    text: Text | None

    def write(self, run: Run) -> tuple[Path, ...]:
        """Write the file and return its path, or several when it is split. Raises the errors of quant.write.execute."""
        assert self.job is not None
        return execute.write(self.job, run, force=self.request.force)

    def loss(self, file: Path, run: Run) -> Report | None:
        """Returns the loss of the written file on the request's text; None without a text."""
        return None if self.text is None else compare_with_source(self.decision.source, file, self.text, run)


@contextmanager
def plan_quantization(request: QuantizeRequest, run: Run) -> Iterator[Quantization]:
    """Open the source and decide its types. All checks come before the first measurement.

    Raises UsageError, NotFound, BadModelFile, Incompatible, DoesNotFit (no types make it so small), Aborted."""
    if request.save_recipe is not None:
        check_recipe_place(request.save_recipe, force=request.force)
    text = None
    if request.measure is not None:
        from dsr.quantize.imatrix import read_text

        text = read_text(request.measure)
    model, target = find_weights(request.source), request.target
    needs_weights = isinstance(target, SizeTarget) or not request.dry_run
    with ExitStack() as stack:
        source = stack.enter_context(
            open_source(
                model.path,
                name=name_of(model),
                pre=request.pre,
                keep_mtp=request.keep_mtp,
                weights=needs_weights,
                listen=run.listen,
            )
        )
        out = request.out or Path(f"{source.name}-{target.name}.gguf")
        if not request.dry_run:
            check_place(out, source.files, force=request.force or request.split_max_size is not None)
            if not isinstance(source, GgufSource):
                rehearse(unquantized(source), source.name, run)
        if text is not None:
            check_text(source, text, run)
        may_requantize = request.allow_requantize or request.dry_run
        if isinstance(target, SizeTarget):
            decision, moments = _of_size(source, target, request, run, may_requantize)
        else:
            decision, moments = _of_recipe(source, target, request, run)
        job = None
        if not request.dry_run:
            decision, stages = stack.enter_context(with_stages(source, decision, moments, run))
            job = execute.prepare(
                decision.source,
                decision.plan,
                out,
                allow_requantize=request.allow_requantize,
                split_max_size=request.split_max_size,
                moments=moments,
                stages=stages,
            )
        if request.save_recipe is not None:
            save_recipe(request.save_recipe, decision)
        yield Quantization(request, decision, job, text)


def _of_size(
    source: Source, target: SizeTarget, request: QuantizeRequest, run: Run, may_requantize: bool
) -> tuple[Decision, Moments | None]:
    """The decision, and the moments to correct errors with: none where they cannot be collected and nobody asked."""
    found = decide_size(
        source,
        target,
        run,
        request.imatrix,
        effort=request.rounding,
        folder=request.moments,
        allow_requantize=may_requantize,
    )
    if found.moments is None:
        return found.decision, None
    return _rounded(found.decision, request.effort, found.moments, None), found.moments


def _of_recipe(
    source: Source, target: AnyRecipe, request: QuantizeRequest, run: Run
) -> tuple[Decision, Moments | None]:
    """The decision, and the moments to correct errors with. A dry run needs none."""
    if request.effort == "off":
        return decide(source, target, request.imatrix, request.overrides), None
    given, unseen, moments = source, None, None
    if not request.dry_run:
        if not request.allow_requantize:
            execute.refuse_requantizing(recipe.plan(target, source, request.overrides))
        given, unseen, moments = _with_moments(source, request, run)
    decision = decide(given, target, request.imatrix, request.overrides)
    return _rounded(decision, request.effort, moments, unseen), moments


def _with_moments(source: Source, request: QuantizeRequest, run: Run) -> tuple[Source, str | None, Moments]:
    """Returns the source with the importances of its second moments unless a matrix is given, a warning about experts
    that saw no token, and the moments."""
    from dsr.quantize.moments import importance_of, moments_of

    moments = moments_of(source, request.moments, run)
    if request.imatrix is not None:
        return source, None, moments
    return *weighted(source, importance_of(moments), moments.folder), moments


def _rounded(decision: Decision, effort: Effort, moments: Moments | None, unseen: str | None) -> Decision:
    """Returns the decision with the effort of each tensor. A dry run has no moments."""
    from quant.measure.texts import CALIBRATION
    from quant.round.plan import plan_rounding

    if moments is None:
        plan = plan_rounding(decision.plan, effort, datasets=(CALIBRATION.name,))
    else:
        index = moments.index
        plan = plan_rounding(
            decision.plan, effort, datasets=index.datasets, tokens=index.tokens, weights=moments.weights
        )
    made = decision.with_plan(plan)
    return replace(made, warnings=(unseen, *made.warnings)) if unseen else made


def check_name(out: Path) -> Path:
    """Return `out`, the file to write. Raises UsageError unless it ends in .gguf, as other commands need it."""
    if out.suffix.lower() != ".gguf":
        place = out / "NAME.gguf" if out.is_dir() else out.with_name(f"{out.name}.gguf") if out.name else "NAME.gguf"
        hint = f"to choose the recipe: --recipe {out}" if str(out) in names() else f"as in {place}"
        raise UsageError(f"{out}: the file to write must end in .gguf", hint=hint)
    return out


def check_recipe_place(path: Path, *, force: bool) -> None:
    """Raise UsageError for a file that would be overwritten, and for a folder."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give the name of the file to write: --save-recipe FILE")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already", hint="give another name, or --force to replace it")


def save_recipe(path: Path, decision: Decision) -> None:
    """Write the plan as a recipe that gives the same file again. Raises DsrError (no place), DoesNotFit (no room)."""
    summary = f"{decision.source.name} at {decision.plan.bits_per_weight:.2f} bits per weight"
    with disk_errors(path):
        write_atomically(path, recipe_text(decision.plan, summary, f"[C] dsr quantize: {decision.origin}").encode())


def compare_with_source(source: Source, out: Path, text: Text, run: Run) -> Report:
    """Returns the loss of the file `out` on a text. Original weights are first written to a temporary GGUF next to it.

    Raises UsageError (too little text), DoesNotFit, EngineFailed, Aborted."""
    from quant.measure.chunks import ChunkOptions
    from quant.measure.divergence import compare
    from quant.write.scratch import scratch_folder

    if isinstance(source, GgufSource):
        return compare(source.files[0], out, [text], ChunkOptions(), run)
    with disk_errors(out), scratch_folder(out.parent, ".measuring-") as folder:
        base = folder / "source.gguf"
        execute.quantize(source, unquantized(source), base, run)
        return compare(base, out, [text], ChunkOptions(), run)


def report_json(report: Report) -> dict[str, object]:
    """The report for JSON: each mean with its standard error."""
    found: dict[str, object] = {"tokens": report.tokens}
    for name in ("base_perplexity", "perplexity", "log_ratio", "kld", "same_top"):
        estimate = getattr(report, name)
        found[name] = {"value": estimate.value, "error": estimate.error}
    return found
