"""What writing needs of matrices that are rounded one after the other, each for its inputs in the file so far."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING, Protocol

from quant.round.watch import Watch
from runtime.base.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quant.round.cross import Inputs

# The inputs of slice `number` of a matrix; None where none were seen.
InputsOf = Callable[[str, int, Watch], "Inputs | None"]
# The bytes of a tensor that was written, (rows, bytes of a row).
Written = Callable[[str], "NDArray[np.uint8]"]


class Stages(Protocol):
    """The stages of a model: matrices of one do not compute from each other's products."""

    @property
    def weights(self) -> frozenset[str]:
        """The matrices of all stages."""

    @property
    def digest(self) -> str:
        """The same for stages that give the same bytes."""

    def each(self, finished: Container[str], written: Written, run: Run) -> Iterator[tuple[frozenset[str], InputsOf]]:
        """The stages with a matrix that is not `finished`. Before the next one is asked for, a stage is written."""
