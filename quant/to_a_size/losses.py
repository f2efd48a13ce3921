"""The loss of each type on each tensor, from some of its rows. The model is not run.

With second moments the loss is the squared error of the tensor's output, relative to the squares of the output, after
the rows were rounded as the file will have them. Without moments it is the squared error of the rows, weighted by
importance, relative to their weighted squares. Both are comparable between the types of a tensor, and a weight for each
tensor (`quant.to_a_size.weights`) makes them comparable between tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.plan import requires_importance
from quant.recipe.mixtures import kept_type, quantizable
from quant.round.grids import TYPES
from quant.round.moment import Moment
from quant.round.moments import Moments
from quant.round.watch import Watch, part
from quant.sources.source import Source, TensorSpec
from quant.to_a_size.figures import figures_file
from runtime.base.errors import Aborted, BadModelFile, VerificationFailed
from runtime.base.events import Progress
from runtime.base.keyed_cache import KeyedCache, finite
from runtime.base.run import Run
from runtime.gguf.tensor_name import parse_name
from runtime.gguf.types import BY_NAME
from runtime.machine.host import usable_threads

Losses = Mapping[str, Mapping[str, float]]

# The useful types of each number of bits. The source's own type (F32, F16, ...) is added.
CANDIDATES = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0",
    "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0",
)  # fmt: skip
# Types with blocks of 32 lose as much as one with blocks of 256 and fewer bits: IQ4_XS, Q4_K, Q5_K (nano, all tensors).
_SHORT_ROWS_ONLY = frozenset({"IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1"})
_LONG_BLOCK = 256
# Layers of a kind that are measured in all types. On nano the ratios between types differ by 10 % between layers.
_IN_FULL = 4
_REFERENCES = ("Q4_K", "Q4_0")
_METHOD = "losses 2"  # figures of another method are measured again
_SAMPLE = 1 << 16  # weights of a tensor that are stored to know its loss
_LEAST_ROWS = 32  # also of wide tensors
_RUN = 16  # rows that are read together
_STEPS = 100  # of one type of one tensor, in the bar
_SLICES = 8  # experts or heads that stand for all of a tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Rows of slice `slice` of a tensor, which count `times`."""

    slice: int
    rows: NDArray[np.float32]
    times: int = 1


def candidates(tensor: TensorSpec, *, importance: bool) -> tuple[str, ...]:
    """The types that a tensor may have. `importance`: whether the importance matrix has an entry for it."""
    if not quantizable(tensor):
        return (kept_type(tensor),)
    fitting = [
        kind
        for kind in CANDIDATES
        if tensor.row_length % BY_NAME[kind].block == 0
        and (importance or not requires_importance(tensor.name, kind))
        and not (kind in _SHORT_ROWS_ONLY and tensor.row_length % _LONG_BLOCK == 0)
    ]
    return tuple(dict.fromkeys((*fitting, kept_type(tensor))))


def measure_losses(source: Source, moments: Moments | None, cache: Path, run: Run) -> dict[str, dict[str, float]]:
    """The relative loss of every type on every tensor that may be quantized; the type it is kept in has none.

    Tensors with `moments` are rounded in each type that has a grid ("fast"). Of each kind of tensor some layers are
    measured in all types. The others are measured in one, and the nearest of those layers tells the ratios to it. The
    figures of a tensor are written to the folder `cache` at once, so a stopped call continues. Raises Aborted when a
    stop is wanted, VerificationFailed for weights that are not finite.
    """
    from runtime.llama.blas import one_blas_thread

    tensors = [tensor for tensor in source.tensors if quantizable(tensor)]
    nearest = nearest_in_full(tensors)
    known = KeyedCache(figures_file(cache, source, moments, _METHOD, _SAMPLE, CANDIDATES), _figures)
    found = {tensor.name: each for tensor in tensors if (each := known.get(tensor.name)) is not None}
    missing = [tensor for tensor in tensors if tensor.name not in found]
    types = {tensor.name: _types(source, tensor) for tensor in tensors}
    wanted = {
        tensor.name: types[tensor.name] if nearest[tensor.name] == tensor.name else (_reference(types[tensor.name]),)
        for tensor in missing
    }
    meter = _Meter(run, sum(map(len, wanted.values())))

    def losses(tensor: TensorSpec) -> dict[str, float]:
        try:
            each = _losses(source, tensor, wanted[tensor.name], moments, meter)
        except BadModelFile:  # names the file already
            raise
        except VerificationFailed as error:
            raise source.unsound(tensor.name, error) from error
        known.put({tensor.name: each})
        return each

    threads = run.threads or usable_threads()
    # Tensors are divided among threads: their figures must not depend on the number of threads.
    with one_blas_thread() if missing else nullcontext(), ThreadPoolExecutor(threads, "losses") as pool:
        try:
            for tensor, each in zip(missing, pool.map(losses, missing), strict=True):
                found[tensor.name] = each
        except BaseException:
            meter.stopped = True
            pool.shutdown(cancel_futures=True)
            raise
    return {
        tensor.name: completed(found[tensor.name], found[nearest[tensor.name]], types[tensor.name])
        for tensor in tensors
    }


def nearest_in_full(tensors: Sequence[TensorSpec]) -> dict[str, str]:
    """For each tensor the one of its kind and shape, in the nearest layer, that is measured in all types."""
    kinds: dict[tuple[object, ...], list[TensorSpec]] = {}
    for tensor in tensors:
        kinds.setdefault((parse_name(tensor.name).part, tensor.shape, tensor.stored), []).append(tensor)
    nearest = {}
    for members in kinds.values():
        members.sort(key=lambda tensor: parse_name(tensor.name).layer or 0)
        count = min(len(members), _IN_FULL)
        places = [(2 * number + 1) * len(members) // (2 * count) for number in range(count)]
        for place, tensor in enumerate(members):
            nearest[tensor.name] = members[min(places, key=lambda other, place=place: abs(other - place))].name  # type: ignore[misc]
    return nearest


def completed(measured: Mapping[str, float], nearest: Mapping[str, float], types: Sequence[str]) -> dict[str, float]:
    """The losses in all types: those of the nearest layer, as large as the one that was measured in both."""
    if len(measured) == len(types):
        return dict(measured)
    [(reference, loss)] = measured.items()
    ratio = loss / nearest[reference] if nearest[reference] else 0.0
    return {kind: ratio * nearest[kind] for kind in types}


def _reference(types: Sequence[str]) -> str:
    """The type that tells how much a tensor loses in all."""
    return next((kind for kind in _REFERENCES if kind in types), types[0])


class _Meter:
    """Reports how far the types are tried, and ends the work of all threads when a stop is wanted.

    One type of one tensor can take minutes, so it counts as many steps.
    """

    def __init__(self, run: Run, types: int) -> None:
        self.stopped = False
        self._run, self._done, self._total, self._lock = run, 0, _STEPS * types, Lock()
        if types:
            run.listen(Progress("trying", "types", 0, self._total, "steps"))

    def one_type(self) -> Watch:
        """The watch of one type of one tensor. It raises Aborted when a stop is wanted."""
        said = 0

        def watch(share: float) -> None:
            nonlocal said
            if self.stopped or self._run.stop.wanted:
                raise Aborted
            steps = int(_STEPS * share)
            if steps > said:
                with self._lock:
                    self._done += steps - said
                    self._run.listen(Progress("trying", "types", self._done, self._total, "steps"))
                said = steps

        return watch


def _types(source: Source, tensor: TensorSpec) -> tuple[str, ...]:
    return candidates(tensor, importance=source.has_importance(tensor.name))


def _losses(
    source: Source, tensor: TensorSpec, types: Sequence[str], moments: Moments | None, meter: _Meter
) -> dict[str, float]:
    importance = (source.importance or {}).get(tensor.name)
    weights = None if importance is None else importance.reshape(-1, tensor.row_length)
    counts = None if moments is None else moments.counts(tensor.name)
    parts: list[tuple[_Sample, NDArray[np.float32] | None, Moment | None]] = []
    for sample in _samples(source, tensor, counts, 1 if weights is None else len(weights)):
        moment = moments.of(tensor.name, sample.slice) if moments is not None else None
        parts.append((sample, None if weights is None else weights[sample.slice % len(weights)], moment))
    squares = sum(sample.times * _squares(sample.rows, by, moment) for sample, by, moment in parts)
    found = {}
    for kind in types:
        total, watch = 0.0, meter.one_type()
        if kind != kept_type(tensor):
            for number, (sample, by, moment) in enumerate(parts):
                here = part(watch, number / len(parts), (number + 1) / len(parts))
                here(0.0)
                total += sample.times * _lost(kind, sample.rows, by, moment, here)
        found[kind] = total / squares if squares else 0.0
        watch(1.0)
    return found


def _squares(rows: NDArray[np.float32], by: NDArray[np.float32] | None, moment: Moment | None) -> float:
    """The squares of the rows' outputs; without moments those of the rows."""
    if moment is not None:
        return float(np.einsum("rc,rc->", rows @ moment.damped, rows, dtype=np.float64))
    return _weighted(rows, by)


def _weighted(rows: NDArray[np.float32], by: NDArray[np.float32] | None) -> float:
    columns = np.square(rows).sum(axis=0, dtype=np.float64)
    return float(columns.sum() if by is None else columns @ by)


def _lost(
    kind: str, rows: NDArray[np.float32], by: NDArray[np.float32] | None, moment: Moment | None, watch: Watch
) -> float:
    """The squared error of the rows' outputs in a type; without moments that of the rows."""
    from quant.round.rounding import round_rows
    from runtime.llama import dequantize_rows, quantize_rows

    number = BY_NAME[kind].number
    stored = quantize_rows(number, rows, by)
    if moment is None:
        return _weighted(rows - dequantize_rows(number, stored), by)
    if kind in TYPES:
        return float(round_rows(rows, stored, kind, moment, "fast", watch).after.sum())
    return _squares(rows - dequantize_rows(number, stored), by, moment)


def _samples(source: Source, tensor: TensorSpec, counts: NDArray[np.int64] | None, matrices: int) -> Iterator[_Sample]:
    """Short runs of rows, spread evenly over some slices of the tensor.

    `counts` are the inputs that each slice has seen: an expert is drawn as often as it is used, so that the sum over
    the samples stands for the output of the layer. Without counts `matrices` slices are drawn alike."""
    slices = max(matrices if counts is None or not counts.any() else len(counts), 1)
    height = tensor.rows // slices
    wanted = max(_SAMPLE // tensor.row_length, _LEAST_ROWS)
    chosen = drawn(np.ones(slices, np.int64) if counts is None or not counts.any() else counts, _SLICES)
    each = max(wanted // len(chosen), 1)
    for number, times in Counter(chosen).items():
        first = number * height
        if each >= height:
            yield _Sample(number, source.read(tensor, first, height), times)
            continue
        length = min(_RUN, each)
        count = each // length
        starts = [n * (height - length) // max(count - 1, 1) for n in range(count)]
        rows = [source.read(tensor, first + start, length) for start in starts]
        yield _Sample(number, np.concatenate(rows), times)


def drawn(counts: NDArray[np.int64], most: int) -> list[int]:
    """At most `most` numbers of slices, each as often as its share of the counts says (systematic sampling)."""
    used = np.flatnonzero(counts)
    if len(used) <= most and (counts[used] == counts[used][0]).all():
        return [int(number) for number in used]
    bounds = np.cumsum(counts, dtype=np.float64)
    places = (np.arange(most) + 0.5) / most * bounds[-1]
    return [int(number) for number in np.searchsorted(bounds, places, side="right")]


def _figures(found: Any) -> dict[str, float]:
    """One entry of the cache. Raises ValueError, TypeError, AttributeError."""
    return {str(kind): finite(value) for kind, value in found.items()}
