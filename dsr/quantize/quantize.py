"""`dsr quantize`: weights and a recipe -> a plan -> a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.models.gguf_names import quant_of, shard_of
from dsr.models.model import Model
from dsr.quantize.imatrix import unseen_in_words
from quant.convert.conversion import source_of
from quant.gguf import keyvalue
from quant.gguf.writer import layout
from quant.plan import QuantPlan, TensorPlan, imatrix_entries
from quant.recipe import recipe
from quant.recipe.recipe import AnyRecipe
from quant.sources.checkpoint import open_checkpoint
from quant.sources.gguf_source import GgufSource
from quant.sources.source import Source
from quant.write import execute
from runtime.base.errors import DsrError, Incompatible, NotFound, UsageError
from runtime.base.events import Listener, ignore
from runtime.base.types import ByteCount
from runtime.base.words import counted
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import card_from_headers, parse_header
from runtime.gguf.tensor_name import ROLES, TensorRole
from runtime.placement.memory import need

if TYPE_CHECKING:
    from quant.measure.imatrix import Imatrix

CONTEXTS = (4096, 32768)
_TOKENIZER = "tokenizer.ggml.model"


@dataclass(frozen=True, slots=True)
class Weights:
    """What is read. `name` is for the file to write."""

    name: str
    source: Source


@dataclass(frozen=True, slots=True)
class Decided:
    """A plan, with the importance per tensor that carrying it out needs. `warnings` include the plan's, `origin` says
    what it was decided by."""

    recipe: str
    plan: QuantPlan
    importance: execute.Importance
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


@dataclass(frozen=True, slots=True)
class Portion:
    """The tensors of one role that have one type; of routed experts `part` tells gate and up from down. `layers` is
    empty outside of layers."""

    role: TensorRole
    part: str
    type: str
    layers: tuple[int, ...]
    parameters: int
    size: ByteCount

    @property
    def bits_per_weight(self) -> float:
        return self.size * 8 / self.parameters


@contextmanager
def opened(
    local: Model,
    *,
    pre: str | None = None,
    keep_mtp: bool = False,
    weights: bool = True,
    listen: Listener = ignore,
) -> Iterator[Weights]:
    """The weights of a model, checked. Without `weights`, config.json is enough, as for a dry run.

    Raises what reading them raises, and NotFound when they are wanted and only config.json is there."""
    if local.kind == "gguf":
        if pre is not None:
            raise UsageError("--pre is for original weights: a GGUF file says which pre-tokenizer it has")
        if keep_mtp:
            raise UsageError("--keep-mtp is for original weights: of a GGUF file all that it has is kept")
        with GgufSource(local.path) as source:
            yield Weights(_bare_name(local), source)
        return
    folder = local.path
    there = any(folder.glob("*.safetensors"))
    checkpoint = open_checkpoint(folder, weights=weights or there)
    if weights and not checkpoint.tensors:
        raise NotFound(
            f"{folder}: there are no weights, only config.json", hint="pull them; a dry run of a recipe does without"
        )
    yield Weights(checkpoint.name, source_of(checkpoint, pre=pre, keep_mtp=keep_mtp, listen=listen))


def decide(weights: Weights, chosen: AnyRecipe, imatrix: Path | None = None) -> Decided:
    """What the file will be. Raises UsageError (the recipe), NotFound, BadModelFile, Incompatible (the matrix)."""
    if imatrix is None:
        made = recipe.plan(chosen, weights.source)
        lacking = ("types this low need an importance matrix: --imatrix",) if made.needs_imatrix else ()
        warnings = (*_about_source(weights), *lacking, *made.warnings)
        return Decided(chosen.name, made, {}, warnings, f"the recipe {chosen.name}")
    from quant.measure.imatrix import read

    matrix = read(imatrix)
    importance = importance_of(matrix, weights.source, imatrix)
    added = imatrix_entries(str(imatrix), matrix.datasets, len(matrix.entries), matrix.chunk_count)
    made = recipe.plan(chosen, weights.source, frozenset(importance), added)
    unseen = unseen_in_words(matrix.coverage())
    warnings = (*_about_source(weights), *([unseen] if unseen else []), *made.warnings)
    return Decided(chosen.name, made, importance, warnings, f"the recipe {chosen.name}")


def default_out(weights: Weights, recipe_name: str) -> Path:
    """NAME-RECIPE.gguf in the working directory; what is made to a size has the size for a recipe."""
    return Path(f"{weights.name}-{recipe_name}.gguf")


def checked_out(out: Path) -> Path:
    """A file to write, by whose name the other commands will know it. Raises UsageError."""
    if out.suffix.lower() != ".gguf":
        place = out / "NAME.gguf" if out.is_dir() else out.with_name(f"{out.name}.gguf") if out.name else "NAME.gguf"
        raise UsageError(f"{out}: the file to write must end in .gguf", hint=f"as in {place}")
    return out


def portions(plan: QuantPlan) -> tuple[Portion, ...]:
    """The plan by role and type, large types first within a role."""
    found: dict[tuple[TensorRole, str, str], list[TensorPlan]] = {}
    for tensor in plan.tensors:
        role = tensor.role
        part = "" if role != "routed experts" else "down" if "ffn_down" in tensor.name else "gate/up"
        found.setdefault((role, part, tensor.target), []).append(tensor)
    rows = [
        Portion(
            role=role,
            part=part,
            type=target,
            layers=tuple(sorted({tensor.layer for tensor in tensors if tensor.layer is not None})),
            parameters=sum(tensor.parameters for tensor in tensors),
            size=ByteCount(sum(tensor.bytes for tensor in tensors)),
        )
        for (role, part, target), tensors in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (ROLES.index(row.role), row.part, -row.bits_per_weight, row.type)))


def layers_in_words(layers: Sequence[int]) -> str:
    """(3, 4, 5, 6, 10, 15, 20) reads '3-6, 10-20 by 5'."""
    parts, rest = [], list(layers)
    while rest:
        step = rest[1] - rest[0] if len(rest) > 1 else 1
        count = 1
        while count < len(rest) and rest[count] - rest[count - 1] == step:
            count += 1
        if count < 3 and step > 1:  # two numbers far apart are no series: the second may begin one
            count = 1
        series = rest[:count]
        parts.append(str(series[0]) if count == 1 else f"{series[0]}-{series[-1]}" + (f" by {step}" * (step > 1)))
        rest = rest[count:]
    return ", ".join(parts)


def layers_beside(row: Portion, rows: Sequence[Portion]) -> str:
    """The layers of a row, or 'the rest' where they are many runs and other rows name those that are not meant."""
    words = layers_in_words(row.layers)
    others = [other for other in rows if (other.role, other.part) == (row.role, row.part) and other is not row]
    apart = not any(set(row.layers) & set(other.layers) for other in others)
    largest = all(row.parameters >= other.parameters for other in others)
    return "the rest" if others and apart and largest and words.count(",") > 1 else words


def memory_in_words(plan: QuantPlan) -> str | None:
    """What running the file will take; None where its header would not tell."""
    card = card_of(plan)
    if card is None:
        return None
    contexts = dict.fromkeys(min(context, card.context_length) for context in CONTEXTS)
    return ", ".join(f"{need(card, context).total} at {context} tokens of context" for context in contexts)


def card_of(plan: QuantPlan) -> ModelCard | None:
    path, metadata = Path("plan.gguf"), plan.metadata
    if all(entry.key != _TOKENIZER for entry in metadata):  # a config.json alone tells how many tokens there are
        metadata = (*metadata, keyvalue.text(_TOKENIZER, "none"))
    planned = layout(metadata, plan.tensors)
    try:
        return card_from_headers((path,), (parse_header(planned.header, planned.size, path),))
    except DsrError:
        return None


def importance_of(matrix: Imatrix, source: Source, path: Path) -> execute.Importance:
    """By tensor. Raises Incompatible for a matrix of another model."""
    found = {
        tensor.name: values
        for tensor in source.tensors
        if (values := matrix.importance(tensor.name, unseen="mean")) is not None
    }
    if not found:
        raise Incompatible(
            f"{path}: it has {counted(len(matrix.entries), 'weight')}, and this model none of them",
            hint="make one of this model: dsr imatrix",
        )
    return found


def _about_source(weights: Weights) -> tuple[str, ...]:
    if any(entry.key == _TOKENIZER for entry in weights.source.metadata):
        return ()
    return ("the tokenizer is not here: its vocabulary will add some MiB to the size",)


def _bare_name(local: Model) -> str:
    """A file's name without its quantization, or the repository's own words for it."""
    if local.embedded:
        return "nano"
    stem = Path(shard_of(local.path.name)[0]).name.removesuffix(".gguf")
    label = quant_of(local.path.name)
    return stem[: -len(label)].rstrip("-._") or stem if label and stem.upper().endswith(label) else stem


def recipes() -> tuple[Mapping[str, str], ...]:
    """Every recipe by name with its one line."""
    return tuple({"name": name, "summary": recipe.summary(name)} for name in recipe.names())
