"""The error of each type on each tensor, measured by quantizing some of its rows. The model is not evaluated.

The error is the squared change of the rows, weighted by importance, relative to the weighted squares of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from quant.plan import requires_importance
from quant.recipe.mixtures import kept_type, quantizable
from quant.sources.source import Source, TensorSpec
from runtime.base.errors import Aborted, BadModelFile, VerificationFailed
from runtime.base.events import Progress
from runtime.base.run import Run
from runtime.gguf.types import BY_NAME
from runtime.machine.host import usable_threads

Errors = Mapping[str, Mapping[str, float]]

# The useful types of each number of bits. The source's own type (F32, F16, ...) is added.
CANDIDATES = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0",
    "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0",
)  # fmt: skip
_SAMPLE = 1 << 17  # weights of a tensor that are quantized to know its error
_RUN = 16  # rows that are read together


def candidates(tensor: TensorSpec, *, importance: bool) -> tuple[str, ...]:
    """The types that a tensor may have. `importance`: whether the importance matrix has an entry for it."""
    if not quantizable(tensor):
        return (kept_type(tensor),)
    fitting = [
        kind
        for kind in CANDIDATES
        if tensor.row_length % BY_NAME[kind].block == 0 and (importance or not requires_importance(tensor.name, kind))
    ]
    return tuple(dict.fromkeys((*fitting, kept_type(tensor))))


def measure_errors(source: Source, run: Run) -> dict[str, dict[str, float]]:
    """The relative error of every type on every tensor that may be quantized; the type it is kept in has none.

    Raises Aborted when a stop is wanted, VerificationFailed for weights that are not finite.
    """
    tensors = [tensor for tensor in source.tensors if quantizable(tensor)]
    found: dict[str, dict[str, float]] = {}

    def errors(tensor: TensorSpec) -> dict[str, float]:
        if run.stop.wanted:
            raise Aborted
        try:
            return _errors(source, tensor)
        except BadModelFile:  # names the file already
            raise
        except VerificationFailed as error:
            raise source.unsound(tensor.name, error) from error

    run.listen(Progress("trying", "types", 0, len(tensors), "steps"))
    with ThreadPoolExecutor(run.threads or usable_threads(), "errors") as pool:
        try:
            for tensor, each in zip(tensors, pool.map(errors, tensors), strict=True):
                found[tensor.name] = each
                run.listen(Progress("trying", "types", len(found), len(tensors), "steps"))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _errors(source: Source, tensor: TensorSpec) -> dict[str, float]:
    from runtime.llama import dequantize_rows, quantize_rows

    importance = (source.importance or {}).get(tensor.name)
    weights = None if importance is None else importance.reshape(-1, tensor.row_length)
    parts = list(_sample(source, tensor, 1 if weights is None else len(weights)))
    totals = dict.fromkeys(candidates(tensor, importance=weights is not None), 0.0)
    kept, squares = kept_type(tensor), 0.0
    for matrix, rows in parts:
        row_weights = None if weights is None else weights[matrix]
        by = np.ones(tensor.row_length, np.float32) if row_weights is None else row_weights
        squares += float(np.square(rows).sum(axis=0, dtype=np.float64) @ by)
        for kind in totals:
            if kind != kept:
                number = BY_NAME[kind].number
                lost = rows - dequantize_rows(number, quantize_rows(number, rows, row_weights))
                totals[kind] += float(np.square(lost).sum(axis=0, dtype=np.float64) @ by)
    return {kind: total / squares if squares else 0.0 for kind, total in totals.items()}


def _sample(source: Source, tensor: TensorSpec, matrices: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Short runs of rows, spread evenly over the tensor, each with the number of its matrix."""
    height = tensor.rows // matrices
    wanted = max(_SAMPLE // tensor.row_length, 1)
    if tensor.rows <= wanted:
        runs = [(matrix * height, height) for matrix in range(matrices)]
    else:
        length = min(_RUN, height, wanted)
        count = max(wanted // length, 1)
        starts = [n * (tensor.rows - length) // max(count - 1, 1) for n in range(count)]
        runs = [(start, min(length, height - start % height)) for start in starts]
    for first, count in runs:
        yield first // height, source.read(tensor, first, count)
