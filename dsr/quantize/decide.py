"""The decision of `dsr quantize`: from a source and a recipe to a plan. For sizes: `dsr.quantize.to_a_size`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.models.gguf_names import quant_of, shard_of
from dsr.models.model import Model
from dsr.quantize.imatrix import unseen_in_words
from quant.plan import QuantPlan, imatrix_entries
from quant.recipe import recipe
from quant.recipe.recipe import AnyRecipe
from quant.sources.source import Source
from runtime.base.errors import Incompatible
from runtime.base.types import counted

TOKENIZER_KEY = "tokenizer.ggml.model"


@dataclass(frozen=True, slots=True)
class Decision:
    """What will be written: `source` with the importance matrix that the plan needs, and the plan.

    `recipe` names the recipe or the size, `origin` what the types were decided by. `warnings` include the plan's.
    `predicted_kld` is in nats per token, None where it was not measured.
    """

    recipe: str
    source: Source
    plan: QuantPlan
    warnings: tuple[str, ...]
    origin: str
    predicted_kld: float | None = None

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
                    "bytes": tensor.bytes,
                }
                for tensor in self.plan.tensors
            ],
        }


def decide(source: Source, chosen: AnyRecipe, imatrix: Path | None = None) -> Decision:
    """The file that a recipe makes.

    Raises UsageError (the recipe), NotFound, BadModelFile, Incompatible (the matrix)."""
    warnings: list[str] = []
    if all(entry.key != TOKENIZER_KEY for entry in source.metadata):
        warnings.append("the tokenizer is not here: its vocabulary will add some MiB to the size")
    if imatrix is not None:
        source, unseen = with_imatrix(source, imatrix)
        warnings += [unseen] if unseen else []
    plan = recipe.plan(chosen, source)
    if imatrix is None and plan.needs_imatrix:
        warnings.append("types this low need an importance matrix: --imatrix")
    return Decision(chosen.name, source, plan, (*warnings, *plan.warnings), f"the recipe {chosen.name}")


def with_imatrix(source: Source, path: Path) -> tuple[Source, str | None]:
    """The source with the importance matrix in the file `path`, and a warning about experts that saw no token.

    Raises NotFound, BadModelFile, Incompatible and UsageError (a matrix of another model)."""
    from quant.measure.imatrix import read

    matrix = read(path)
    importance = {
        tensor.name: values
        for tensor in source.tensors
        if (values := matrix.importance(tensor.name, unseen="mean")) is not None
    }
    if not importance:
        raise Incompatible(
            f"{path}: it has {counted(len(matrix.entries), 'weight')}, and this model none of them",
            hint="make one of this model: dsr imatrix",
        )
    added = imatrix_entries(str(path), matrix.datasets, len(matrix.entries), matrix.chunk_count)
    return source.with_importance(importance, added), unseen_in_words(matrix.coverage())


def name_of(local: Model) -> str:
    """What to call a model in the name of a new file: a GGUF file's name without its quantization."""
    if local.embedded:
        return "nano"
    stem = Path(shard_of(local.path.name)[0]).name.removesuffix(".gguf")
    label = quant_of(local.path.name)
    return stem[: -len(label)].rstrip("-._") or stem if label and stem.upper().endswith(label) else stem
