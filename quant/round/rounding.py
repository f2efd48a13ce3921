"""Rounds rows of a matrix again, in the type and the bytes that the engine's quantizer gave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.round.feedback import feed_back
from quant.round.grids import grid_of
from quant.round.moment import Moment
from quant.round.sweeps import sweep
from quant.round.watch import Watch, part, unwatched
from quant.round.working import Working

Floats = NDArray[np.float32]

# Raise it with any change that gives other bytes: an unfinished file of another version is begun again.
VERSION = 3
_SWEEPS = 3  # on nano at Q3_K_M three left 0.464 of the plain loss, none 0.501
# Rows whose squared error is a smaller share of their squares lie on the grid already: there is nothing to win.
_ON_THE_GRID = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """`stored` is (rows, bytes of a row); `after` is the loss of each row, (rows,): the mean squared error of its
    output, with the damping of `Moment`."""

    stored: NDArray[np.uint8]
    after: NDArray[np.float64]


def round_rows(
    weights: Floats,
    stored: NDArray[np.uint8],
    type_name: str,
    moment: Moment,
    effort: str,
    watch: Watch = unwatched,
) -> Rounded:
    """Round `weights`, (rows, columns), which the engine's quantizer stored as `stored`. Rows that do not gain keep
    their bytes. `effort` is "fast" or "best" (`quant.plan.Effort`)."""
    grid = grid_of(type_name)
    if grid is None:
        raise ValueError(f"{type_name} has no grid")
    working = Working(grid, weights, stored)
    errors = working.errors()
    squares = np.einsum("cr,cr->r", errors, errors), np.einsum("cr,cr->r", working.weights, working.weights)
    sweeps = _SWEEPS if effort == "best" else 0
    parts = 3 + 2 * sweeps  # a sweep computes twice as many products as feedback or losses
    factor = moment.factor(grid.vector, part(watch, 0, 1 / parts))
    if (squares[0] <= _ON_THE_GRID * squares[1]).all():
        return Rounded(stored, factor.loss(errors, watch=part(watch, 1 / parts, 1)))
    after = feed_back(working, factor, part(watch, 1 / parts, 2 / parts))
    if sweeps:
        swept = working.errors()
        for done in range(2, parts - 1, 2):
            sweep(working, moment.damped, swept, part(watch, done / parts, (done + 2) / parts))
        after = factor.loss(working.errors(), watch=part(watch, 1 - 1 / parts, 1 - 0.5 / parts))
    last = part(watch, 1 - 0.5 / parts, 1)
    # Of the engine's rounding as much as decides: most rows gain.
    before = factor.loss(errors, after, last)
    gains = after < before
    return Rounded(np.where(gains[:, None], working.pack(), stored), np.where(gains, after, before))
