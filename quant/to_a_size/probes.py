"""Measures the KL divergence of a model in which some tensors have the types of a plan.

Tensors are replaced in the memory of the open model, so a probe costs one reading of a few conversations. The rounded
tensors come from one file for each plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quant.measure.chunks import Text, settle_threads
from quant.measure.divergence import Base
from quant.measure.moments import sequences
from quant.plan import QuantPlan, TensorPlan, make_plan, planned
from quant.recipe.mixtures import engine_order, kept_type, quantizable
from quant.round.moments import Moments
from quant.sources.source import GgufSource, Source, TensorSpec
from quant.to_a_size.figures import figures_file
from quant.write.execute import prepare, write
from quant.write.scratch import scratch_folder
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import Aborted, EngineFailed, Incompatible
from runtime.base.keyed_cache import KeyedCache, finite
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.placement.trial import try_file

if TYPE_CHECKING:
    from runtime.llama import EditedScorer

_METHOD = "probes 1"  # figures of another method are measured again
_IN_MEMORY = frozenset({"F16", "F32"})  # types of weights that are replaced without losing more than a plan does
_PIECE = 1 << 22  # weights that are replaced at a time
_F16_FILE = 1  # LLAMA_FTYPE_MOSTLY_F16 (llama.h)


class Probes:
    """Divergences of plans from their source on some conversations. A context manager.

    Each figure is written to the folder `cache` at once, and read from there by a later call. Only a figure that is not
    there opens the model."""

    def __init__(
        self, source: Source, moments: Moments | None, texts: Sequence[Text], tokens: int, cache: Path, run: Run
    ) -> None:
        """`tokens` of the texts are read. `moments` are those of plans that correct errors."""
        self._source, self._moments, self._texts, self.tokens = source, moments, texts, tokens
        self._cache, self._run = cache, run
        self._specs = {tensor.name: tensor for tensor in source.tensors}
        contents = [hashlib.sha256(text.content.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
        self._known = KeyedCache(figures_file(cache, source, moments, _METHOD, tokens, contents), finite)
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._model: EditedScorer | None = None
        self._base = Base()
        self._replaced: dict[str, str] = {}  # tensors by the digest of the plan whose types they have
        self._files: dict[str, GgufSource] = {}  # of plans, by digest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()

    def of_tensors(self, plan: QuantPlan, names: Iterable[str]) -> float:
        """The divergence with the tensors `names` as in `plan`, and all others as in the source.

        Raises EngineFailed and DoesNotFit where the model cannot be evaluated here, Aborted."""
        chosen = frozenset(names)
        return self._figure("tensors", plan, chosen, lambda: self._edited(plan, chosen))

    def of_file(self, plan: QuantPlan) -> float:
        """The divergence of the file that `plan` makes. Raises as `of_tensors`."""
        return self._figure("file", plan, frozenset(self._specs), lambda: self._file_divergence(plan))

    def _figure(self, kind: str, plan: QuantPlan, names: frozenset[str], measure: Callable[[], float]) -> float:
        out = hashlib.sha256()
        for tensor in sorted(plan.tensors, key=lambda tensor: tensor.name):
            if tensor.name in names:
                out.update(f"{tensor.name}\0{tensor.target}\0{tensor.rounding}\n".encode())
        key = f"{kind} {out.hexdigest()[:24]}"
        found = self._known.get(key)
        if found is None:
            with disk_errors(self._known.path):
                found = max(measure(), 0.0)
            self._known.put({key: found})
        return found

    def _edited(self, plan: QuantPlan, names: frozenset[str]) -> float:
        model = self._opened()
        wanted = {
            tensor.name: plan.digest
            for tensor in plan.tensors
            if tensor.name in names and tensor.target != tensor.stored
        }
        for name in sorted(self._replaced.keys() | wanted.keys()):
            if self._replaced.get(name) != wanted.get(name):
                source = self._written(plan) if name in wanted else self._source
                self._copy(model, source, name)
        self._replaced = wanted
        return self._base.compare(model).kld.value

    def _copy(self, model: EditedScorer, source: Source, name: str) -> None:
        tensor = self._specs[name]
        spec = tensor if source is self._source else next(each for each in source.tensors if each.name == name)
        count = max(_PIECE // tensor.row_length, 1)
        for first in range(0, tensor.rows, count):
            if self._run.stop.wanted:
                raise Aborted
            model.replace(name, first, source.read(spec, first, min(count, tensor.rows - first)))

    def _file_divergence(self, plan: QuantPlan) -> float:
        from runtime.llama import Scorer

        self._opened()
        path = self._written(plan).files[0]
        with Scorer(path, window=self._window, run=Run(self._run.stop, threads=self._threads)) as model:
            return self._base.compare(model).kld.value

    def _opened(self) -> EditedScorer:
        """The model of the source, with its own output recorded."""
        if self._model is not None:
            return self._model
        from runtime.llama import EditedScorer

        run = self._run
        self._folder = self._stack.enter_context(scratch_folder(self._cache, ".probes-"))
        path = self._original()
        try:
            try_file(read_card(path), run)
        except Incompatible as error:  # the name of a temporary file tells nobody anything
            raise EngineFailed(
                f"{self._source.name}: {error.message.removeprefix(f'{path}: ')}", hint=error.hint
            ) from error
        self._window = min(read_card(path).context_length, 2048)
        model = self._stack.enter_context(EditedScorer(path, window=self._window, run=run))
        self._threads = settle_threads(model, run.threads)
        parts = sequences(model, self._texts, self._window, self.tokens)
        model.find([tensor.name for tensor in self._source.tensors if quantizable(tensor)], parts[0])
        self._base = self._stack.enter_context(Base(self._folder))
        self._base.record_whole(model, parts, name=self._source.name, listen=run.listen)
        self._model = model
        return model

    def _original(self) -> Path:
        """A file of the source whose matrices can be replaced in memory."""
        source, folder = self._source, self._folder
        matrices = [tensor for tensor in source.tensors if quantizable(tensor)]
        if isinstance(source, GgufSource) and all(tensor.stored in _IN_MEMORY for tensor in matrices):
            return source.files[0]
        assert folder is not None
        path = folder / "source.gguf"

        def target(tensor: TensorSpec) -> TensorPlan:
            kept = kept_type(tensor)
            return planned(tensor, "F16" if quantizable(tensor) and kept not in _IN_MEMORY else kept, "measuring")

        tensors = [target(tensor) for tensor in sorted(source.tensors, key=engine_order)]
        plan = make_plan(tensors, source, _F16_FILE)
        write(prepare(source, plan, path, allow_requantize=True), self._run)
        return path

    def _written(self, plan: QuantPlan) -> GgufSource:
        """The file of a plan, written once."""
        if plan.digest not in self._files:
            assert self._folder is not None
            path = self._folder / f"trial-{len(self._files) + 1}.gguf"
            job = prepare(self._source, plan, path, allow_requantize=True, moments=self._moments)
            write(job, self._run)
            self._files[plan.digest] = self._stack.enter_context(GgufSource(path))
        return self._files[plan.digest]
