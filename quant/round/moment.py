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

from quant.round.watch import Watch, unwatched

Floats = NDArray[np.float32]

# Added to the diagonal, as a share of its mean: at least GPTQ's, and more where few inputs tell little of a column's
# place among others. On text of another domain 1 to 6 times columns / inputs lost least (docs/log.md).
DAMPING = 0.01
DAMPING_OF_FEW = 3.0
_PANEL = 512  # columns that the factorization takes at a time; a multiple of each group
_LOSS_PANEL = 256  # columns whose loss is computed in one matrix product
_CHUNK = 512  # columns of a panel that are computed between two looks at the watch


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

    def loss(
        self, errors: Floats, enough: NDArray[np.float64] | None = None, watch: Watch = unwatched
    ) -> NDArray[np.float64]:
        """The loss of each row, (rows,), from errors of the columns in natural order, (columns, rows).

        With `enough`, (rows,), it is only as much of it as shows that each row has more than that, where all have."""
        total = np.zeros(errors.shape[1])
        placed = errors[self.order]
        # Errors that nothing corrects add up towards the end, so that most of their loss is found there.
        for end in range(len(placed), 0, -_LOSS_PANEL):
            start = max(end - _LOSS_PANEL, 0)
            total += self.residual_loss(start, self.rows[start:end, :end] @ placed[:end])
            if enough is not None and (total > enough).all():
                break
            watch(1 - start / len(placed))
        return total

    def solved(self, wanted: NDArray[np.float64], watch: Watch = unwatched) -> NDArray[np.float64]:
        """H^-1 `wanted`, both (columns, rows) with the columns in natural order: from the first column to the last and
        back, for H = (blocks rows)^T (blocks rows)."""
        found = wanted[self.order]
        panels = [(start, min(start + _LOSS_PANEL, len(found))) for start in range(0, len(found), _LOSS_PANEL)]
        for done, (start, end) in enumerate(reversed(panels)):
            lower = self._lower(start, end)
            found[start:end] = np.linalg.solve(lower[:, start:].T, found[start:end])
            found[:start] -= lower[:, :start].T @ found[start:end]
            watch((done + 1) / (2 * len(panels)))
        for done, (start, end) in enumerate(panels):
            lower = self._lower(start, end)
            found[start:end] -= lower[:, :start] @ found[:start]
            found[start:end] = np.linalg.solve(lower[:, start:], found[start:end])
            watch((done + 1 + len(panels)) / (2 * len(panels)))
        natural = np.empty_like(found)
        natural[self.order] = found
        return natural

    def _lower(self, start: int, end: int) -> NDArray[np.float64]:
        """Rows of blocks rows from place `start` to `end` of the order, (columns, columns up to the end)."""
        own = self.blocks[start // self.vector : end // self.vector].astype(np.float64)
        return (own @ _grouped(self.rows[start:end, :end].astype(np.float64), self.vector)).reshape(end - start, end)

    def residual_loss(self, start: int, residuals: Floats) -> NDArray[np.float64]:
        """The part of the loss that columns from place `start` of the order on have, from what is left of the error
        that each of them sees, (columns, rows)."""
        first, count = start // self.vector, len(residuals) // self.vector
        parts = self.blocks[first : first + count] @ residuals.reshape(count, self.vector, -1)
        return np.asarray(np.einsum("gvr,gvr->r", parts, parts, dtype=np.float64))


class Moment:
    """The moments of one matrix. `damped` is H with damping, (columns, columns), float32. Threads may share it."""

    def __init__(self, sums: Floats, count: int, watch: Watch = unwatched, *, in_place: bool = False) -> None:
        """`sums` is the sum of x x^T over `count` inputs, which may be in a file. It becomes H itself if `in_place`.

        Raises ValueError if all inputs were zero."""
        inputs = max(count, 1)
        damped = sums if in_place else np.empty(sums.shape, np.float32)
        for start in range(0, len(sums), _PANEL):
            np.divide(sums[start : start + _PANEL], np.float32(inputs), out=damped[start : start + _PANEL])
            watch(0)
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

    def factor(self, vector: int, watch: Watch = unwatched) -> Factor:
        """The factor for groups of `vector` columns, computed once."""
        with self._lock:
            if vector not in self._factors:
                self._factors[vector] = _factored(self.damped, vector, watch)
            return self._factors[vector]


def _factored(damped: Floats, vector: int, watch: Watch) -> Factor:
    """R^T of H = R R^T, from the last panel of columns to the first, with each group divided by its own block.

    The products are in float64. Only the result is kept, in float32: 1.4 GB for 18,944 columns, where LAPACK's
    factorization would need 5.7 GB."""
    columns = len(damped)
    power = np.einsum("ii->i", damped).reshape(-1, vector).sum(axis=1)
    # Large moments first: their errors can then be corrected by all others. It gained 15 % over the natural order.
    groups = np.argsort(-power, kind="stable")
    order = (groups[:, None] * vector + np.arange(vector)).reshape(-1)
    rows = np.zeros((columns, columns), np.float32)
    blocks = np.empty((columns // vector, vector, vector))
    for start in range((columns - 1) // _PANEL * _PANEL, -1, -_PANEL):
        end = min(start + _PANEL, columns)
        later = blocks[end // vector :]
        weighted = np.swapaxes(later, 1, 2) @ (later @ _grouped(rows[end:, start:end], vector))
        left = weighted.reshape(columns - end, end - start).T
        upper = np.linalg.cholesky(_rest(damped, order, rows, left, start, start, end)[::-1, ::-1])[::-1, ::-1]
        for group in range(start // vector, end // vector):
            own = slice(group * vector - start, (group + 1) * vector - start)
            blocks[group] = upper[own, own].T
        scaled = np.linalg.inv(blocks[start // vector : end // vector]) @ _grouped(np.linalg.inv(upper), vector)
        to_rows = scaled.reshape(end - start, end - start)
        rows[start:end, start:end] = np.tril(to_rows @ upper @ upper.T)
        for at in range(start, end, vector):
            rows[at : at + vector, at : at + vector] = np.eye(vector)
        for begin in range(0, start, _CHUNK):
            past = min(begin + _CHUNK, start)
            rows[start:end, begin:past] = to_rows @ _rest(damped, order, rows, left, start, begin, past)
            watch(1 - (end / columns) ** 2)
    return Factor(order, rows, blocks.astype(np.float32), vector)


def _rest(
    damped: Floats, order: NDArray[np.intp], rows: Floats, left: NDArray[np.float64], start: int, begin: int, past: int
) -> NDArray[np.float64]:
    """The part of R R^T that later columns leave: rows from `start` on, columns from `begin` to `past`.

    `left` is (rows, later columns): its product with `rows` of the later columns is their part."""
    end, later = start + len(left), order.size - left.shape[1]
    found = damped[np.ix_(order[start:end], order[begin:past])].astype(np.float64)
    if later < order.size:
        found -= left @ rows[later:, begin:past].astype(np.float64)
    return found


def _grouped(values: NDArray[np.floating], vector: int) -> NDArray[np.floating]:
    return values.reshape(len(values) // vector, vector, values.shape[1])
