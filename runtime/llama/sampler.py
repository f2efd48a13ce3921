"""Samples a token from one row of logits and computes its statistics; both use the row's top tokens."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from runtime.base.types import SamplingParams, TokenStatistics
from runtime.llama.defaults import sampler_chain_params
from runtime.llama.native import native

_CONFIDENT = 20  # tokens whose probabilities make DeepConf's confidence (its reference code asks for 20 logprobs)
_MOST_SORTED = 128  # sorting more tokens takes longer than it saves
_SMALL = 8192  # for a smaller vocabulary the engine's own chain is faster than numpy
_ROWS = 64

_Candidate = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data


class TopTokens(NamedTuple):
    """The most likely tokens of a row with their logits, the most likely first. Of equal ones the lower id is first."""

    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]


def top_tokens(logits: NDArray[np.float32], count: int) -> TopTokens:
    """The `count` most likely tokens of a row, or all if there are fewer.

    With the logits laid out in rows, at least `count` columns have a value as large as the `count`-th largest column
    maximum, so no smaller value is among the `count` largest. For a vocabulary of 150 000 these are two fast passes,
    while a partition of all values would take longer than sampling.
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
    """The number of top tokens to sample from; None if sampling from all is faster."""
    if vocab_size < _SMALL or not 0 < params.top_k <= _MOST_SORTED:
        return None
    return max(params.top_k, _CONFIDENT)


def statistics(
    logits: NDArray[np.float32], first: TopTokens | None, token: int, scratch: NDArray[np.float32]
) -> TokenStatistics:
    """The statistics of `token`. `first` are the top tokens of the row if known; `scratch` has room for a row."""
    size = len(logits)
    if first is None and size >= _SMALL:
        first = top_tokens(logits, _CONFIDENT)
    if first is not None:
        best = first.logits[:_CONFIDENT]
    else:
        np.copyto(scratch, logits)
        scratch.partition(-min(_CONFIDENT, size))
        best = scratch[-_CONFIDENT:].copy()
    # Reductions are called directly, because the methods mean() and sum() take twice the time.
    peak = np.maximum.reduce(best)
    # In place and in single precision, which numpy sums pairwise: a row is larger than the CPU's caches, and eight
    # samples have eight rows in each step.
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
    """A sampler chain of llama.cpp in its order: filters, temperature, random choice."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self._chain = native.llama_sampler_chain_init(sampler_chain_params())
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
        """Sample from the top tokens of a row, which are at least as many as top-k keeps.

        Returns the same token as `draw_row`, without building candidates for the whole vocabulary.
        """
        candidates = self._candidates[: len(first.tokens)]
        count = len(candidates)
        candidates["id"] = first.tokens[:count]
        candidates["logit"] = first.logits[:count]
        self._array.size, self._array.selected, self._array.sorted = count, -1, True
        native.llama_sampler_apply(self._chain, self._reference)
        return int(candidates["id"][self._array.selected])

    def draw_row(self, context: Any, row: int) -> int:
        """Sample from all tokens of a row of the last batch, which must have logits."""
        return int(native.llama_sampler_sample(self._chain, context, row))

    def __del__(self) -> None:
        # The chain owns its steps. At interpreter exit the module may be gone already; the memory is then, too.
        free = cast("Callable[[Any], None] | None", getattr(native, "llama_sampler_free", None))
        if free is not None:
            free(self._chain)
