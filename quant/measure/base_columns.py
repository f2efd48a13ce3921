"""Selects the part of a base model's output that `base_file` keeps: the likeliest tokens, and one of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.measure.divergence import Base

CODE_BITS = 12  # of an entry's log-probability: its rounding moves a divergence by less than 1e-6 nats
LEAST = 1e-300  # replaces a mass of 0, whose logarithm is not finite
_SEED = 0  # of the tokens drawn from the tails, so that the same recording gives the same file


@dataclass(frozen=True, slots=True)
class Columns:
    """The kept values, as columns.

    For each scored token: `losses` is minus the log-probability of the text's own token; `tails` and `drawn_logs` are
    log-probabilities of the tail and of the token `drawn` from it; `counts` is the number of entries. `ids` and `codes`
    are the entries of all tokens one after the other, likeliest first."""

    losses: NDArray[np.float16]
    tails: NDArray[np.float16]
    drawn_logs: NDArray[np.float16]
    drawn: NDArray[np.uint32]
    counts: NDArray[np.uint32]
    ids: NDArray[np.uint32]
    codes: NDArray[np.uint32]


def choose(base: Base, each: float, most: int) -> tuple[Columns, float]:
    """Returns the columns and the unit of the codes in nats. A scored token has `each` entries on average, at most
    `most`."""
    last = _threshold(base, int((each - 1) * base.losses.size))
    random = np.random.default_rng(_SEED)
    tails, drawn_logs, drawn, counts, ids, logs = [], [], [], [], [], []
    for block in base.log_probabilities():
        rows, entries = _chosen(block, last, most)
        counts.append(np.bincount(rows, minlength=len(block)))
        ids.append(entries)
        logs.append(block[rows, entries])
        masses = np.exp(block, dtype=np.float64)
        masses[rows, entries] = 0
        reached = np.cumsum(masses, axis=1)
        tail = reached[:, -1]
        lot = (reached < (tail * random.random(len(block)))[:, None]).sum(axis=1)
        tails.append(np.log(np.maximum(tail, LEAST)))
        drawn.append(lot)
        drawn_logs.append(block[np.arange(len(block)), lot])
    found = -np.concatenate(logs).astype(np.float64)
    step = max(float(found.max()), 1e-6) / (2**CODE_BITS - 1)
    half = np.finfo(np.float16)
    columns = Columns(
        losses=np.clip(base.losses, 0, float(half.max)).astype(np.float16),
        tails=np.concatenate(tails).astype(np.float16),
        drawn_logs=np.maximum(np.concatenate(drawn_logs), float(half.min)).astype(np.float16),
        drawn=np.concatenate(drawn).astype(np.uint32),
        counts=np.concatenate(counts).astype(np.uint32),
        ids=np.concatenate(ids).astype(np.uint32),
        codes=np.rint(found / step).astype(np.uint32),
    )
    return columns, step


def _threshold(base: Base, budget: int) -> int:
    """Returns the last level (see `_levels`) to keep with `budget` entries in all; -1 for none.

    The likeliest entry of each row is kept in addition."""
    counts = np.zeros(2**15, np.int64)
    for block in base.log_probabilities():
        levels = _levels(block)
        likeliest = levels[np.arange(len(block)), block.argmax(axis=1)]
        counts += np.bincount(levels.ravel(), minlength=counts.size)
        counts -= np.bincount(likeliest, minlength=counts.size)
    return int(np.searchsorted(np.cumsum(counts), budget, side="right")) - 1


def _levels(block: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Returns each log-probability as an integer, larger for less likely tokens: a float16's bits without the sign."""
    halves = np.minimum(-block, np.float32(65504)).astype(np.float16)
    return halves.view(np.uint16) & np.uint16(0x7FFF)


def _chosen(block: NDArray[np.float32], last: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the rows and tokens of the entries to keep, each row's likeliest first."""
    wanted = _levels(block).astype(np.int32) <= last
    wanted[np.arange(len(block)), block.argmax(axis=1)] = True
    rows, ids = np.nonzero(wanted)
    order = np.lexsort((-block[rows, ids], rows))
    rows, ids = rows[order], ids[order]
    starts = np.searchsorted(rows, np.arange(len(block)))
    keep = np.arange(rows.size) - starts[rows] < most
    return rows[keep], ids[keep]
