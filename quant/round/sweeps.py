"""Sweeps that lower the loss of codes: block by block, scales are fitted to the codes, then codes to the scales.

Each step is exact in the loss e^T H e and is kept only where it gains, so the loss never rises (coordinate descent as
in QuantEase, arXiv 2309.01885).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.round.scales import fit_block
from quant.round.watch import Watch, unwatched
from quant.round.working import Working

Floats = NDArray[np.float32]

_PANEL = 256  # columns whose gradients are computed in one matrix product; a multiple of each type's block
_INNER = 32  # columns within a block, whose moves reach the rest of it together


def sweep(working: Working, damped: Floats, errors: Floats, watch: Watch = unwatched) -> None:
    """Fit all scales and choose all codes once more. `errors`, (columns, rows), are weights minus values, and are
    updated. `damped` is H, (columns, columns)."""
    columns, block = len(damped), working.grid.kind.block
    for start in range(0, columns, _PANEL):
        end = min(start + _PANEL, columns)
        gradients = damped[start:end] @ errors
        with working.turn():
            for begin in range(start, end, block):
                past = begin + block
                own, gradient = damped[begin:past, begin:past], gradients[begin - start : past - start]
                moved = fit_block(working, begin // block, own, gradient)
                moved += descend(working, begin, own, gradient)
                errors[begin:past] -= moved
                if past < end:
                    gradients[past - start :] -= damped[past:end, begin:past] @ moved
        watch(end / columns)


def descend(working: Working, begin: int, own: Floats, gradient: Floats) -> Floats:
    """Choose each code of some columns again while all others stay. Returns by how much the values change.

    `own` is their part of H; `gradient`, H @ errors of these columns, (columns, rows), is used up."""
    vector, moved = working.grid.vector, np.zeros_like(gradient)
    choose = _nearer_column if vector == 1 else _nearer_vector
    for inner in range(0, len(own), _INNER):
        last = min(inner + _INNER, len(own))
        if inner:
            gradient[inner:last] -= own[inner:last, :inner] @ moved[:inner]
        for at in range(inner, last, vector):
            past = at + vector
            if at > inner:
                gradient[at:past] -= own[at:past, inner:at] @ moved[inner:at]
            choose(working, begin + at, own[at:past, at:past], gradient[at:past], moved[at:past])
    return moved


def _nearer_column(working: Working, column: int, own: Floats, gradient: Floats, moved: Floats) -> None:
    """Choose a column's code again. `gradient` is used up; `moved` becomes by how much the values change."""
    grid = working.grid
    sub, level, wanted = column // grid.sub, working.levels[column], gradient[0]
    wanted *= working.inverse[sub]
    wanted *= 1 / own[0, 0]
    wanted += level
    grid.round_levels(wanted)
    np.subtract(wanted, level, out=moved[0])
    moved[0] *= working.steps[sub]
    level[:] = wanted


def _nearer_vector(working: Working, first: int, own: Floats, gradient: Floats, moved: Floats) -> None:
    """The same for the columns of a codebook's entry.

    The nearest in a codebook is found with the diagonal of H alone, so the exact change decides."""
    sub = first // working.grid.sub
    now = working.levels[first : first + len(own)]
    wanted = np.linalg.solve(own, gradient) * working.inverse[sub] + now
    choice = working.nearest_entries(sub, wanted, np.diagonal(own).copy())
    step = (choice.levels - now) * working.steps[sub]
    change = np.einsum("vr,vr->r", step, own @ step - 2 * gradient)
    gains = change < 0
    working.take(first, choice, gains)
    np.multiply(step, gains, out=moved)
