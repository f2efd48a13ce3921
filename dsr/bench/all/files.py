"""Quantizes a model with recipes, for `dsr bench all`."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dsr.models.library import find
from dsr.models.model import Model
from dsr.quantize import imatrix
from dsr.quantize.decide import Decision, decide, name_of
from quant.open_source import open_source
from quant.recipe import recipe
from quant.sources.source import Source
from quant.write import execute
from quant.write.output import journal_of
from runtime.base.errors import DoesNotFit, DsrError, UsageError
from runtime.base.events import Notice
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard

ALL = "all"
# Chunks of 512 tokens of the built-in calibration text, for types that need an importance matrix.
IMATRIX_CHUNKS = 32


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A file that a recipe will make."""

    recipe: str
    path: Path
    size: ByteCount


def recipes_of(lists: Sequence[str], *, experts: bool) -> tuple[str, ...]:
    """Returns the recipes of comma-separated lists; "all" leaves out recipes for experts if the model has no `experts`.

    Raises UsageError for a name that is no recipe.
    """
    found: list[str] = []
    for name in (each.strip() for words in lists for each in words.split(",")):
        found += _all_recipes(experts) if name == ALL else [name] if name else []
    for name in found:
        recipe.load(name)
    return tuple(dict.fromkeys(found))


def _all_recipes(experts: bool) -> list[str]:
    return [name for name in recipe.names() if experts or not recipe.is_for_experts(recipe.load(name))]


class Maker:
    """Quantizes one model into `folder`."""

    def __init__(
        self,
        model: Model,
        folder: Path,
        run: Run,
        *,
        allow_requantize: bool = False,
    ) -> None:
        self._model = model
        self._folder = folder
        self._allow_requantize = allow_requantize
        self._run = run

    def path(self, name: str) -> Path:
        return self._folder / f"{self._model.path.stem}-{name}.gguf"

    def _source(self) -> AbstractContextManager[Source]:
        return open_source(self._model.path, name=name_of(self._model), listen=self._run.listen)

    def planned(self, names: Sequence[str]) -> tuple[tuple[RecipeFile, ...], tuple[tuple[str, str], ...]]:
        """Returns the files to make, and the recipes that are refused, with reasons."""
        found: list[RecipeFile] = []
        refused: list[tuple[str, str]] = []
        with self._source() as source:
            for name in names:
                try:
                    decided = decide(source, self._recipe(name))
                    if not decided.plan.needs_imatrix and not self._allow_requantize:
                        execute.refuse_requantizing(decided.plan)
                except DsrError as error:
                    refused.append((name, error.message))
                else:
                    found.append(RecipeFile(name, self.path(name), decided.plan.bytes))
        return tuple(found), tuple(refused)

    def _recipe(self, name: str) -> recipe.AnyRecipe:
        """Returns a recipe. Raises UsageError if it is for experts and the model has none."""
        chosen = recipe.load(name)
        if recipe.is_for_experts(chosen) and not self._model.card.experts:
            raise UsageError(f"{name} is for mixtures of experts")
        return chosen

    def check_room(self, planned: Sequence[RecipeFile]) -> None:
        """Raises DoesNotFit if the disk has no room for the missing files."""
        missing = sum(each.size for each in planned if not each.path.exists())
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if missing > free:
            raise DoesNotFit(
                f"{self._folder}: the files to measure need {ByteCount(missing)}, {ByteCount(free)} are free",
                hint="use fewer --recipes at a time: finished parts are saved",
                missing=missing - free,
            )

    def make(self, each: RecipeFile) -> Model:
        """Returns the file, and makes it if it is missing. Raises the errors of quantizing."""
        if not each.path.exists() or journal_of(each.path).exists():
            self._run.listen(Notice(f"making {each.path.name}"))
            with self._source() as source:
                decided = self._decided(source, each.recipe)
                execute.quantize(
                    decided.source, decided.plan, each.path, self._run, allow_requantize=self._allow_requantize
                )
        return find(str(each.path))

    def _decided(self, source: Source, name: str) -> Decision:
        chosen = recipe.load(name)
        decided = decide(source, chosen)
        return decide(source, chosen, self._imatrix()) if decided.plan.needs_imatrix else decided

    def _imatrix(self) -> Path:
        out = self._folder / f"{self._model.path.stem}-imatrix.gguf"
        if not out.exists():
            request = imatrix.ImatrixRequest(out, chunks=IMATRIX_CHUNKS)
            imatrix.make(self._model, request, self._run)
        return out


def card_of_source(model: Model) -> ModelCard:
    """Returns the model's card. Raises UsageError for original weights, which the engine cannot run."""
    if model.kind != "gguf":
        raise UsageError(
            f"{model.reference}: original weights cannot be measured",
            hint=f"convert them first: dsr quantize {shlex.quote(model.reference)} f16.gguf --recipe f16",
        )
    return model.card
