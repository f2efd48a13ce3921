"""The second moments of a matrix's inputs, prepared for rounding.

H = sum of x x^T over the inputs x of a matrix, divided by their number. The loss of rounding a row by the error e is
e^T H e: the squared error of the row's output. With H = R R^T, R upper triangular, it becomes a sum of squares in
which column k sees only the errors of columns before it (LDLQ, arXiv 2307.13304; the same codes as GPTQ,
arXiv 2210.17323, and Babai's nearest plane, arXiv 2507.18553). So no inverse is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Added to the diagonal, as a share of its mean: at least GPTQ's, and more where few inputs tell little of a column's
# place among others. On text of another domain 1 to 6 times columns / inputs lost least (docs/log.md).
DAMPING = 0.01
DAMPING_OF_FEW = 3.0
_PANEL = 512  # columns that the factorization takes at a time


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """H with its columns in the order in which they are rounded, factored for groups of `vector` columns.

    `order` has the columns, (columns,). `rows` is (columns, columns), lower triangular, with unit blocks on the
    diagonal: rows[k] @ E is the error that column k sees, where E are the errors in order. `blocks` is
    (groups, vector, vector): the loss of a row is the sum of |blocks[g] @ (rows @ E)[g]|^2.
    """

    order: NDArray[np.intp]
    rows: Floats
    blocks: Floats
    vector: int

    def loss(self, errors: Floats) -> NDArray[np.float64]:
        """The loss of each row, (rows,), from errors of the columns in natural order, (columns, rows)."""
        placed = errors[self.order]
        total = np.zeros(errors.shape[1])
        for start in range(0, len(placed), _PANEL):
            end = min(start + _PANEL, len(placed))
            total += self.residual_loss(start, self.rows[start:end, :end] @ placed[:end])
        return total

    def residual_loss(self, start: int, residuals: Floats) -> NDArray[np.float64]:
        """The part of the loss that columns from place `start` of the order on have, from what is left of the error
        that each of them sees, (columns, rows)."""
        first, count = start // self.vector, len(residuals) // self.vector
        parts = self.blocks[first : first + count] @ residuals.reshape(count, self.vector, -1)
        return np.asarray(np.einsum("gvr,gvr->r", parts, parts, dtype=np.float64))


class Moment:
    """The moments of one matrix. `damped` is H with damping, (columns, columns), float32. Threads may share it."""

    def __init__(self, sums: Floats, count: int) -> None:
        """`sums` is the sum of x x^T over `count` inputs. Raises ValueError if all inputs were zero."""
        inputs = max(count, 1)
        damped = sums / np.float32(inputs)
        diagonal = np.einsum("ii->i", damped)
        share = max(DAMPING, DAMPING_OF_FEW * len(damped) / inputs)
        added = share * float(diagonal.mean(dtype=np.float64))
        if not added > 0:
            raise ValueError("there are no inputs that are not zero")
        diagonal += np.float32(added)
        self.damped: Floats = damped
        self._factors: dict[int, Factor] = {}
        self._lock = Lock()

    @property
    def columns(self) -> int:
        return len(self.damped)

    def factor(self, vector: int) -> Factor:
        """The factor for groups of `vector` columns, computed once."""
        with self._lock:
            if vector not in self._factors:
                self._factors[vector] = _factored(self.damped, vector)
            return self._factors[vector]


def _factored(damped: Floats, vector: int) -> Factor:
    columns = len(damped)
    power = np.einsum("ii->i", damped).reshape(-1, vector).sum(axis=1)
    # Large moments first: their errors can then be corrected by all others. It gained 15 % over the natural order.
    groups = np.argsort(-power, kind="stable")
    order = (groups[:, None] * vector + np.arange(vector)).reshape(-1)
    backwards = order[::-1]
    lower = _cholesky_in_place(damped[np.ix_(backwards, backwards)].astype(np.float64))
    factor = lower[::-1, ::-1].T  # R^T, lower triangular in the order
    rows = np.zeros((columns, columns), np.float32)
    blocks = np.empty((columns // vector, vector, vector), np.float32)
    for number in range(columns // vector):
        start, end = number * vector, (number + 1) * vector
        own = factor[start:end, start:end]
        blocks[number] = own
        rows[start:end, :end] = (
            factor[start:end, :end] / own if vector == 1 else np.linalg.solve(own, factor[start:end, :end])
        )
        rows[start:end, start:end] = np.eye(vector)
    return Factor(order, rows, blocks, vector)


def _cholesky_in_place(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lower Cholesky factor, in the memory of `matrix`; what is above the diagonal is not cleared.

    np.linalg.cholesky needs the memory twice: 5.7 GB for 18,944 columns."""
    columns = len(matrix)
    for start in range(0, columns, _PANEL):
        end = min(start + _PANEL, columns)
        panel = matrix[start:, start:end]
        if start:
            panel -= matrix[start:, :start] @ matrix[start:end, :start].T
        panel[: end - start] = np.linalg.cholesky(panel[: end - start])
        if end < columns:
            panel[end - start :] = np.linalg.solve(panel[: end - start], panel[end - start :].T).T
    return matrix
