"""Made-up tensors of a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

_numbers = count(1)


@dataclass(frozen=True)
class FakeNode:
    """A tensor of a graph; `array` has numpy's order of axes."""

    name: str
    array: NDArray[Any]
    operation: str = "NONE"
    sources: tuple[FakeNode, ...] = ()
    identity: int = field(default_factory=lambda: next(_numbers))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values().shape[::-1]

    @property
    def is_float32(self) -> bool:
        return self.array.dtype == np.float32

    def source(self, number: int, /) -> FakeNode:
        return self.sources[number]

    def values(self) -> NDArray[Any]:
        return self.array.reshape((1,) * (4 - self.array.ndim) + self.array.shape)


def weight(name: str, *shape: int) -> FakeNode:
    return FakeNode(name, np.zeros(shape, np.float32))
