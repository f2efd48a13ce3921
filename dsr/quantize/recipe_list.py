"""The recipes for `dsr quantize --list-recipes`: bits and size of a model, and the measured loss."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from quant.recipe.recipe import is_for_experts, load, names, plan, rounding_of, summary
from quant.sources.source import Source
from runtime.base.errors import UsageError
from runtime.base.types import ByteCount

DEFAULT = "q4_k_m"
HEADER = ("recipe", "bits", "size", "KLD", "what it is")


@dataclass(frozen=True, slots=True)
class RecipeRow:
    """One recipe for one model. `bits` and `size` are exact, None where no rule is for a tensor of the model.

    `kld` is the loss that dsr measured with it on nano, in nats per token; None if it was not measured.
    """

    name: str
    summary: str
    round: str
    bits: float | None
    size: ByteCount | None
    kld: float | None
    needs_imatrix: bool

    @property
    def is_default(self) -> bool:
        return self.name == DEFAULT

    def cells(self) -> tuple[str, ...]:
        notes = [*(["default"] if self.is_default else []), self.summary]
        what = "; ".join(notes + (["imatrix"] if self.needs_imatrix else []))
        bits = "-" if self.bits is None else f"{self.bits:.2f}"
        return self.name, bits, str(self.size or "-"), "-" if self.kld is None else f"{self.kld:.4f}", what

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "summary": self.summary,
            "round": self.round,
            "default": self.is_default,
            "bpw": None if self.bits is None else round(self.bits, 4),
            "bytes": None if self.size is None else int(self.size),
            "kld": self.kld,
            "needs_imatrix": self.needs_imatrix,
        }


def recipe_rows(source: Source) -> tuple[RecipeRow, ...]:
    """The recipes that come with dsr and are made for such a model: the one with most bits first.

    Those for mixtures of experts give a dense model 8 bits, whatever their name says, so they are left out for it.
    """
    is_mixture = any(tensor.role == "routed experts" for tensor in source.tensors)
    rows = [_row(name, source) for name in names() if is_mixture or not is_for_experts(load(name))]
    return tuple(sorted(rows, key=lambda row: -(row.bits or 0)))


def _row(name: str, source: Source) -> RecipeRow:
    recipe = load(name)
    try:
        planned = plan(recipe, source)
    except UsageError:
        return RecipeRow(name, summary(name), rounding_of(recipe), None, None, measured_on_nano().get(name), False)
    return RecipeRow(
        name,
        summary(name),
        rounding_of(recipe),
        planned.bits_per_weight,
        planned.bytes,
        measured_on_nano().get(name),
        planned.needs_imatrix,
    )


@cache
def measured_on_nano() -> dict[str, float]:
    """The KL divergence of nano's files from nano by recipe, as docs/results.md has it (`dsr bench all nano`)."""
    text = resources.files("dsr.data").joinpath("nano-losses.toml").read_text(encoding="utf-8")
    return {name: float(value) for name, value in tomllib.loads(text)["kld"].items()}
