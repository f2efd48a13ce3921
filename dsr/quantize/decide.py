"""The decision of `dsr quantize`: from a source and a recipe to a plan, and what every decision tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.models.gguf_names import quant_of
from dsr.models.model import Model
from quant.plan import TOKENIZER_KEY, QuantPlan, imatrix_entries
from quant.recipe import recipe
from quant.recipe.overrides import NONE, Overrides
from quant.recipe.recipe import AnyRecipe
from quant.sources.source import Source
from runtime.base.errors import Incompatible
from runtime.base.shard_names import shard_of
from runtime.base.types import counted

if TYPE_CHECKING:
    from quant.measure.imatrix import Imatrix


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


def decide(source: Source, chosen: AnyRecipe, imatrix: Path | None = None, overrides: Overrides = NONE) -> Decision:
    """Returns the file that a recipe makes, with other types where `overrides` name them.

    Raises UsageError (the recipe), NotFound, BadModelFile, Incompatible (the matrix)."""
    warnings: list[str] = []
    if all(entry.key != TOKENIZER_KEY for entry in source.metadata):
        warnings.append("the tokenizer is not here: its vocabulary will add some MiB to the size")
    if imatrix is not None:
        source, unseen = with_imatrix(source, imatrix)
        warnings += [unseen] if unseen else []
    plan = recipe.plan(chosen, source, overrides)
    if source.importance is None and plan.needs_imatrix:
        warnings.append("types this low need an importance matrix: --imatrix, or --round, which makes one")
    return Decision(chosen.name, source, plan, (*warnings, *plan.warnings), f"the recipe {chosen.name}")


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
