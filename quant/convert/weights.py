"""Weights as expressions: stored tensors of a checkpoint, and the few ways to make a tensor of the GGUF from them.

An expression has a shape in the checkpoint's order (row length last) and reads any of its rows, so memory holds only
the rows that are asked for. Rows run over all dimensions but the last; a vector is one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.float32]


class Tensors(Protocol):
    """The stored tensors, under the names of the family's table."""

    def read(self, name: str, first: int, count: int, out: Rows) -> None:
        """Fill `out`, (count, row length) and contiguous, with rows of the tensor `name` from `first` on."""
        ...


class Weight(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def sources(self) -> tuple[str, ...]:
        """The stored tensors that it is made of."""
        ...

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        """Fill `out`, (count, row length) and contiguous, with rows from `first` on."""
        ...


def row_count(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as the checkpoint has it."""

    source: str
    shape: tuple[int, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        tensors.read(self.source, first, len(out), out)


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers that follow from the configuration, as one row."""

    values: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.values),)

    @property
    def sources(self) -> tuple[str, ...]:
        return ()

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        out[...] = self.values


@dataclass(frozen=True, slots=True)
class Zeros:
    """Zeros that the checkpoint does not have."""

    shape: tuple[int, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return ()

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        out[...] = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """Weights one after the other: along their first dimension, or as the matrices of a `stack`."""

    parts: tuple[Weight, ...]
    stack: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        if self.stack:
            return (len(self.parts), *first)
        return (sum(part.shape[0] for part in self.parts), *first[1:])

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(source for part in self.parts for source in part.sources)

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        if len(self.shape) == 1:  # vectors, which are one row together
            begin = 0
            for part in self.parts:
                part.read(tensors, 0, out[:, begin : begin + part.shape[0]])
                begin += part.shape[0]
            return
        begin, end = 0, first + len(out)  # the row at which the next part begins
        for part in self.parts:
            rows = row_count(part.shape)
            low, high = max(begin, first), min(begin + rows, end)
            if low < high:
                part.read(tensors, low - begin, out[low - first : high - first])
            begin += rows


@dataclass(frozen=True)
class _Derived:
    """A weight that is made of one other; its shape is that of the other, if nothing says otherwise."""

    inner: Weight

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def sources(self) -> tuple[str, ...]:
        return self.inner.sources


@dataclass(frozen=True)
class _Ordered(_Derived):
    """`order` has the number of each row or column to take."""

    order: tuple[int, ...] | range

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        import numpy as np

        return np.asarray(self.order, np.int64)


@dataclass(frozen=True)
class Picked(_Ordered):
    """Rows of each matrix of `inner`, in the order of `order`, which has the number of a row within its matrix.

    Of vectors the elements are picked. Neighbours are read together."""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        whole = self.inner.shape
        return (len(self.order),) if len(whole) == 1 else (*whole[:-2], len(self.order), whole[-1])

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        import numpy as np

        if len(self.inner.shape) == 1:
            out[0] = np.take(_all_of(self.inner, tensors)[0], self._order)
            return
        each, length = len(self.order), self.inner.shape[-2]
        done = 0
        while done < len(out):
            matrix, row = divmod(first + done, each)
            count = min(each - row, len(out) - done)
            self._read_matrix(tensors, matrix * length, self._order[row : row + count], out[done : done + count])
            done += count

    def _read_matrix(self, tensors: Tensors, base: int, wanted: NDArray[np.int64], out: Rows) -> None:
        """Read the rows `wanted` behind row `base`: all of a span that has few others, else run by run."""
        import numpy as np

        low, high = int(wanted.min()), int(wanted.max()) + 1
        if high - low == len(wanted) and bool((np.diff(wanted) == 1).all()):
            self.inner.read(tensors, base + low, out)
        elif high - low <= 2 * len(wanted):
            block = np.empty((high - low, out.shape[1]), out.dtype)
            self.inner.read(tensors, base + low, block)
            np.take(block, wanted - low, axis=0, out=out)
        else:
            for begin, end in _runs(wanted):
                self.inner.read(tensors, base + int(wanted[begin]), out[begin:end])


@dataclass(frozen=True)
class PickedColumns(_Ordered):
    """The same of columns."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.inner.shape[:-1], len(self.order))

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        import numpy as np

        whole = np.empty((len(out), self.inner.shape[-1]), np.float32)
        self.inner.read(tensors, first, whole)
        np.take(whole, self._order, axis=1, out=out)


_TILE = 1 << 20  # numbers of a matrix that are read at a time to be transposed


@dataclass(frozen=True)
class Transposed(_Derived):
    """Each matrix of `inner` with rows and columns exchanged."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.inner.shape[:-2], self.inner.shape[-1], self.inner.shape[-2])

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        import numpy as np

        rows, columns = self.inner.shape[-2:]
        step = max(_TILE // columns, 1)
        done = 0
        while done < len(out):
            matrix, column = divmod(first + done, columns)
            count = min(columns - column, len(out) - done)
            for begin in range(0, rows, step):
                tile = np.empty((min(step, rows - begin), columns), np.float32)
                self.inner.read(tensors, matrix * rows + begin, tile)
                out[done : done + count, begin : begin + len(tile)] = tile[:, column : column + count].T
            done += count


@dataclass(frozen=True)
class Mapped(_Derived):
    """Each number changed by `function`, which takes and returns an array of float32."""

    function: Callable[[Rows], Rows]

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        import numpy as np

        self.inner.read(tensors, first, out)
        with np.errstate(all="ignore"):  # numbers that become infinite are found when they are stored
            out[...] = self.function(out)


@dataclass(frozen=True)
class ScaledRows(_Derived):
    """Each row of a matrix multiplied by a number of its own; of a vector, each element."""

    factors: tuple[float, ...]

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        import numpy as np

        self.inner.read(tensors, first, out)
        factors = np.asarray(self.factors, np.float32)
        if len(self.shape) == 1:
            out[...] *= factors
        else:
            out[...] *= factors[first : first + len(out), None]


@dataclass(frozen=True)
class Reshaped(_Derived):
    """The same numbers in another shape. If its rows have another length, all of it is read at once: for small ones."""

    new_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.new_shape

    def read(self, tensors: Tensors, first: int, out: Rows) -> None:
        if self.shape[-1] == self.inner.shape[-1]:
            self.inner.read(tensors, first, out)
        else:
            out[...] = _all_of(self.inner, tensors).reshape(-1, self.shape[-1])[first : first + len(out)]


def keeps_rows(weight: Weight) -> bool:
    """Whether the rows are whole rows of stored tensors, in any order: then their bytes can be copied, too."""
    if isinstance(weight, Joined):
        return len(weight.shape) > 1 and all(map(keeps_rows, weight.parts))
    if isinstance(weight, Picked):
        return len(weight.shape) > 1 and keeps_rows(weight.inner)
    return isinstance(weight, Stored)


def _all_of(weight: Weight, tensors: Tensors) -> Rows:
    import numpy as np

    rows = np.empty((row_count(weight.shape), weight.shape[-1]), np.float32)
    weight.read(tensors, 0, rows)
    return rows


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where runs of consecutive numbers begin and end."""
    import numpy as np

    breaks = (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
    return zip([0, *breaks], [*breaks, len(numbers)], strict=True)
