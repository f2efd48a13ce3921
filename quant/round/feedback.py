"""Rounding with feedback: each column is rounded to what corrects the errors of the columns before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.round.moment import Factor
from quant.round.watch import Watch, unwatched
from quant.round.working import Working

Floats = NDArray[np.float32]

_BLOCK = 256  # columns whose errors reach the later ones in one matrix product
_INNER = 32  # columns within a block, whose errors reach the rest of it together


def feed_back(working: Working, factor: Factor, watch: Watch = unwatched) -> NDArray[np.float64]:
    """Choose all codes of `working` in the factor's order. Its scales stay. Returns the loss of each row.

    Column k gets the value nearest to its weight plus rows[k] @ E, E the errors so far (LDLQ, arXiv 2307.13304)."""
    rows, order = factor.rows, factor.order
    columns, count = working.weights.shape
    errors = np.empty((columns, count), np.float32)
    loss = np.zeros(count)
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        wanted = working.weights[order[start:end]]
        if start:
            wanted += rows[start:end, :start] @ errors[:start]
        with working.turn():
            _feed_back_block(working, factor, start, wanted, errors[start:end])
        loss += factor.residual_loss(start, wanted)
        watch((end / columns) ** 2)
    return loss


def _feed_back_block(working: Working, factor: Factor, start: int, wanted: Floats, errors: Floats) -> None:
    """Choose the codes of a block of columns, from place `start` of the order on.

    `wanted`, (columns, rows), becomes what is left of it; `errors` becomes weights minus values."""
    rows, choose = factor.rows, _choose_column if factor.vector == 1 else _choose_vector
    own = rows[start : start + len(wanted), start : start + len(wanted)]
    for inner in range(0, len(wanted), _INNER):
        last = min(inner + _INNER, len(wanted))
        if inner:
            wanted[inner:last] += own[inner:last, :inner] @ errors[:inner]
        for at in range(inner, last, factor.vector):
            past = at + factor.vector
            if at > inner:
                wanted[at:past] += own[at:past, inner:at] @ errors[inner:at]
            choose(working, factor, start + at, wanted[at:past], errors[at:past])


def _choose_column(working: Working, factor: Factor, at: int, target: Floats, errors: Floats) -> None:
    """Round the column at place `at` of the order to what is nearest to `target`, which becomes what is left of it.

    `target` and `errors` are (1, rows); `errors` becomes the weights minus their new values."""
    grid, column = working.grid, int(factor.order[at])
    sub, level = column // grid.sub, working.levels[column]
    target, errors = target[0], errors[0]
    if working.offsets is None:
        np.multiply(target, working.inverse[sub], out=level)
        grid.round_levels(level)
        np.multiply(level, working.steps[sub], out=errors)
    else:
        np.add(target, working.offsets[sub], out=level)
        level *= working.inverse[sub]
        grid.round_levels(level)
        np.multiply(level, working.steps[sub], out=errors)
        errors -= working.offsets[sub]
    target -= errors
    np.subtract(working.weights[column], errors, out=errors)


def _choose_vector(working: Working, factor: Factor, at: int, target: Floats, errors: Floats) -> None:
    """The same for the columns of a codebook's entry, (vector, rows)."""
    first, block = int(factor.order[at]), factor.blocks[at // factor.vector]
    sub = first // working.grid.sub
    choice = working.nearest_entries(sub, target * working.inverse[sub], np.square(np.diagonal(block)))
    working.take(first, choice)
    values = choice.levels * working.steps[sub]
    np.subtract(working.weights[first : first + factor.vector], values, out=errors)
    target -= values
