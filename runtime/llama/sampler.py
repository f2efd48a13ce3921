"""The top tokens of a row of logits, and the statistics of the token that was drawn from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.base.types import SamplingParams, TokenStatistics

_CONFIDENT = 20  # tokens whose probabilities make DeepConf's confidence (its reference code asks for 20 logprobs)
_MOST_SORTED = 128  # sorting more tokens takes longer than it saves
_SMALL = 8192  # for a smaller vocabulary the engine's own chain is faster than numpy
_ROWS = 64


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
    kept = params.top_k
    if params.temperature == 0 and params.typical_p == 1 and not params.xtc_probability:
        kept = 1  # the others never matter
    # Top-n-sigma needs the mean of all logits.
    if vocab_size < _SMALL or params.top_n_sigma or not 0 < kept <= _MOST_SORTED:
        return None
    return max(kept, _CONFIDENT)


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


def entropy(logits: NDArray[np.float32], scratch: NDArray[np.float32]) -> float:
    """The entropy of the softmax of a row, in nats. `scratch` has room for a row.

    With z the logits less their maximum and Z the sum of e^z, it is log Z - (sum of z e^z) / Z.
    """
    # -100 is e^-100 of the likeliest token: nothing. Tokens that are excluded have -inf, and 0 times that is no number.
    shifted = np.maximum(logits - np.maximum.reduce(logits), np.float32(-100))
    np.exp(shifted, out=scratch)
    total = float(np.add.reduce(scratch))
    return math.log(total) - float(np.dot(shifted, scratch)) / total


def logprobs(logits: NDArray[np.float32], token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of `token`, and the `count` likeliest tokens with theirs, in nats."""
    peak = float(np.maximum.reduce(logits))
    total = peak + math.log(float(np.add.reduce(np.exp(logits - np.float32(peak)))))
    found = top_tokens(logits, count) if count else TopTokens(np.empty(0, np.int64), np.empty(0, np.float32))
    return float(logits[token]) - total, [
        (int(each), float(value) - total) for each, value in zip(found.tokens, found.logits, strict=True)
    ]
