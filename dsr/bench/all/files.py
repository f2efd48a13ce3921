"""The files that recipes make of a model, for as long as they are measured."""

from __future__ import annotations

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
# Of 512 tokens each, for the types that need an importance matrix; it is made of the built-in calibration text.
IMATRIX_CHUNKS = 32


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that a recipe will make."""

    recipe: str
    path: Path
    size: ByteCount


def recipes_of(asked: Sequence[str], *, experts: bool) -> tuple[str, ...]:
    """The recipes that lists name; "all" are those for mixtures of `experts`, or for models without. Raises UsageError
    for what is no recipe."""
    found: list[str] = []
    for name in (each.strip() for words in asked for each in words.split(",")):
        found += _fitting_all(experts) if name == ALL else [name] if name else []
    for name in found:
        recipe.load(name)
    return tuple(dict.fromkeys(found))


def _fitting_all(experts: bool) -> list[str]:
    return [name for name in recipe.names() if experts or not _for_experts(recipe.load(name))]


def _for_experts(chosen: recipe.AnyRecipe) -> bool:
    return isinstance(chosen, recipe.Recipe) and chosen.for_experts


class Maker:
    """Makes files of one model into `folder`."""

    def __init__(
        self,
        local: Model,
        folder: Path,
        run: Run,
        *,
        allow_requantize: bool = False,
    ) -> None:
        self._local = local
        self._folder = folder
        self._allow_requantize = allow_requantize
        self._run = run

    def path(self, name: str) -> Path:
        return self._folder / f"{self._local.path.stem}-{name}.gguf"

    def _source(self) -> AbstractContextManager[Source]:
        return open_source(self._local.path, name=name_of(self._local), listen=self._run.listen)

    def planned(self, names: Sequence[str]) -> tuple[tuple[Planned, ...], tuple[tuple[str, str], ...]]:
        """What is to be made, and of what cannot be, why."""
        found: list[Planned] = []
        refused: list[tuple[str, str]] = []
        with self._source() as source:
            for name in names:
                try:
                    decided = decide(source, self._fitting(name))
                    if not decided.plan.needs_imatrix and not self._allow_requantize:
                        execute.refuse_requantizing(decided.plan)
                except DsrError as error:
                    refused.append((name, error.message))
                else:
                    found.append(Planned(name, self.path(name), decided.plan.bytes))
        return tuple(found), tuple(refused)

    def _fitting(self, name: str) -> recipe.AnyRecipe:
        """The recipe. Raises UsageError for one of experts where there are none: it would be another's twin."""
        chosen = recipe.load(name)
        if _for_experts(chosen) and not self._local.card.experts:
            raise UsageError(f"{name} is for mixtures of experts")
        return chosen

    def check_room(self, planned: Sequence[Planned]) -> None:
        """Raise DoesNotFit where the disk has no room for those that are not there yet."""
        missing = sum(each.size for each in planned if not each.path.exists())
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if missing > free:
            raise DoesNotFit(
                f"{self._folder}: the files to measure need {ByteCount(missing)}, {ByteCount(free)} are free",
                hint="name fewer --recipes at a time: what is measured is kept",
                missing=missing - free,
            )

    def make(self, each: Planned) -> Model:
        """The file, made now unless it is there. Raises what quantizing does."""
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
        out = self._folder / f"{self._local.path.stem}-imatrix.gguf"
        if not out.exists():
            request = imatrix.ImatrixRequest(out, chunks=IMATRIX_CHUNKS)
            imatrix.make(self._local, request, self._run)
        return out


def card_of_source(local: Model) -> ModelCard:
    """Raises UsageError for original weights, which no engine can run."""
    if local.kind != "gguf":
        raise UsageError(
            f"{local.reference}: original weights cannot be measured",
            hint=f"convert them first: dsr quantize {local.reference} f16.gguf --recipe f16",
        )
    return local.card
