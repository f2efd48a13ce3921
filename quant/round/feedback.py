"""Rounding with feedback: each column is rounded to what corrects the errors of the columns before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.round.moment import Factor
from quant.round.working import Working

_BLOCK = 256  # columns whose errors reach the later ones in one matrix product
_INNER = 32  # columns within a block, whose errors reach the rest of it together


def feed_back(working: Working, factor: Factor) -> NDArray[np.float64]:
    """Choose all codes of `working` in the factor's order. Its scales stay. Returns the loss of each row.

    Column k gets the value nearest to its weight plus rows[k] @ E, E the errors so far (LDLQ, arXiv 2307.13304)."""
    rows, order, vector = factor.rows, factor.order, factor.vector
    columns, count = working.weights.shape
    errors = np.empty((columns, count), np.float32)
    loss = np.zeros(count)
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        wanted = working.weights[order[start:end]]
        if start:
            wanted += rows[start:end, :start] @ errors[:start]
        for inner in range(start, end, _INNER):
            last = min(inner + _INNER, end)
            if inner > start:
                wanted[inner - start : last - start] += rows[inner:last, start:inner] @ errors[start:inner]
            for at in range(inner, last, vector):
                first, past = int(order[at]), at + vector
                target = wanted[at - start : past - start]
                if at > inner:
                    target += rows[at:past, inner:at] @ errors[inner:at]
                block = factor.blocks[at // vector]
                choice = working.choose(first, target, np.square(np.diagonal(block)))
                working.take(first, choice)
                errors[at:past] = working.weights[first : first + vector] - choice.values
                target -= choice.values
        loss += factor.residual_loss(start, wanted)
    return loss
