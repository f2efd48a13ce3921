"""What a matrix is rounded towards when the layers before it are rounded already: the cross term of GPTAQ.

x are the inputs of a matrix W in the original model, y those in the file as it is rounded so far. W x is met best not
by W y but by W' y with W' = W E[x y^T] E[y y^T]^-1 = W + W E[(x - y) y^T] E[y y^T]^-1 (arXiv 2504.02692, section 4).
So a matrix corrects the errors of earlier layers, as far as its inputs foretell them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.round.grids import grid_of
from quant.round.moment import Moment
from quant.round.watch import Watch, unwatched

Floats = NDArray[np.float32]

# Columns of differences that are in float64 at a time: all of 8,192 take 0.5 GB, all of 18,944 would take 2.9 GB.
_WHOLE, _PANEL = 8192, 512


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The inputs y of a matrix: `moment` has E[y y^T]. `differences` is E[(x - y) y^T], (columns, columns), or None
    where they are those of the original model."""

    moment: Moment
    differences: Floats | None = None

    def target(self, weights: Floats, type_name: str, watch: Watch = unwatched) -> Floats:
        """What to round `weights`, (rows, columns), towards, for a type with a grid."""
        grid = grid_of(type_name)
        if self.differences is None or grid is None:
            return weights
        factor = self.moment.factor(grid.vector, watch)  # the one that rounding needs
        wanted = np.empty(weights.T.shape)
        columns_first = weights.T.astype(np.float64)
        panel = len(wanted) if len(wanted) <= _WHOLE else _PANEL
        for start in range(0, len(wanted), panel):
            own = self.differences[:, start : start + panel].T.astype(np.float64)
            np.matmul(own, columns_first, out=wanted[start : start + panel])
            watch(0)
        del columns_first
        return np.asarray(weights + factor.solved(wanted, watch).T, np.float32)
