"""Drawing from one row of logits, and how sure the model was: both look at the likeliest tokens, found once."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from runtime.base.types import SamplingParams, TokenStatistics
from runtime.llama.native import native

_CONFIDENT = 20  # tokens whose probabilities make DeepConf's confidence (its reference code asks for 20 logprobs)
_MOST_SORTED = 128  # beyond so many, sorting them costs more than it saves
_SMALL = 8192  # tokens of a vocabulary that the engine's own chain narrows faster than numpy
_ROWS = 64

_Candidate = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data


class TopTokens(NamedTuple):
    """Some tokens of a row, the likeliest first, and their logits. Among equals the lower number comes first."""

    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]


def top_tokens(logits: NDArray[np.float32], count: int) -> TopTokens:
    """The `count` likeliest tokens of a row, or all when there are fewer.

    When the logits are laid out in rows, `count` columns have a value as large as the `count`-th largest of the
    columns' maxima, so what is smaller cannot be among the `count` largest. So a vocabulary of 150 000 needs two passes
    that the processor does fast, where a partition of all would take longer than drawing.
    """
    count = min(count, len(logits))
    columns = len(logits) // _ROWS
    table = logits[: columns * _ROWS].reshape(_ROWS, columns)
    maxima = table.max(axis=0) if columns > count else logits
    least = np.partition(maxima, len(maxima) - count)[len(maxima) - count]
    found = np.flatnonzero(logits >= least)
    if len(found) < count:
        found = np.arange(len(logits))  # some are not numbers
    values = logits[found]
    order = np.argsort(-values, kind="stable")[:count]
    return TopTokens(found[order], values[order])


def candidate_count(params: SamplingParams, vocab_size: int) -> int | None:
    """How many of the likeliest tokens of a row to draw from; None when it is better drawn from all."""
    if vocab_size < _SMALL or not 0 < params.top_k <= _MOST_SORTED:
        return None
    return max(params.top_k, _CONFIDENT)


def statistics(
    logits: NDArray[np.float32], first: TopTokens | None, token: int, scratch: NDArray[np.float32]
) -> TokenStatistics:
    """How sure the model was of `token`. `first` are the likeliest of this row where they are known; `scratch` has room
    for a row."""
    size = len(logits)
    if first is None and size >= _SMALL:
        first = top_tokens(logits, _CONFIDENT)
    if first is not None:
        best = first.logits[:_CONFIDENT]
    else:
        np.copyto(scratch, logits)
        scratch.partition(-min(_CONFIDENT, size))
        best = scratch[-_CONFIDENT:].copy()
    # Reductions are called by name, since the methods mean() and sum() take twice the time for the same.
    peak = np.maximum.reduce(best)
    # In place and in single precision, which numpy adds pairwise: a row is larger than the processor's caches, and
    # eight samples that vote have eight rows per step.
    np.subtract(logits, peak, out=scratch)
    mean = float(np.add.reduce(scratch)) / size
    np.exp(scratch, out=scratch)
    log_total = math.log(float(np.add.reduce(scratch)))
    return TokenStatistics(
        logprob=float(logits[token] - peak) - log_total,
        confidence=log_total + float(peak) - float(np.add.reduce(best)) / len(best),
        certainty=log_total - mean - math.log(size),
    )


class Chain:
    """One C sampler chain. The order is llama.cpp's: narrow the candidates first, then temperature, then draw."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        chain_params = native.llama_sampler_chain_default_params()
        chain_params.no_perf = True
        self._chain = native.llama_sampler_chain_init(chain_params)
        steps: list[Any] = []
        if params.top_k:
            steps.append(native.llama_sampler_init_top_k(params.top_k))
        if params.top_p < 1:
            steps.append(native.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p:
            steps.append(native.llama_sampler_init_min_p(params.min_p, 1))
        steps.append(native.llama_sampler_init_temp(params.temperature))
        steps.append(native.llama_sampler_init_dist(seed))
        for step in steps:
            native.llama_sampler_chain_add(self._chain, step)
        self._candidates = np.empty(min(params.top_k, _MOST_SORTED), _Candidate)
        self._array = native.llama_token_data_array()
        self._array.data = ctypes.cast(self._candidates.ctypes.data, native.llama_token_data_p)
        self._reference = ctypes.byref(self._array)

    def draw(self, first: TopTokens) -> int:
        """Draw from the likeliest tokens of a row, at least as many as top-k keeps.

        The same token as `draw_row` would draw, without making candidates of a whole vocabulary for that.
        """
        candidates = self._candidates[: len(first.tokens)]
        count = len(candidates)
        candidates["id"] = first.tokens[:count]
        candidates["logit"] = first.logits[:count]
        self._array.size, self._array.selected, self._array.sorted = count, -1, True
        native.llama_sampler_apply(self._chain, self._reference)
        return int(candidates["id"][self._array.selected])

    def draw_row(self, context: Any, row: int) -> int:
        """Draw from all tokens of a row of the last batch, which must have logits."""
        return int(native.llama_sampler_sample(self._chain, context, row))

    def __del__(self) -> None:
        # The chain owns its steps. At interpreter exit the module may be gone already; the memory is then, too.
        free = cast("Callable[[Any], None] | None", getattr(native, "llama_sampler_free", None))
        if free is not None:
            free(self._chain)
