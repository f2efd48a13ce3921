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
    viewed: FakeNode | None = None  # the tensor whose memory it uses
    left_out: list[bool] = field(default_factory=list)  # each time that somebody said whether to compute it

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values().shape[::-1]

    @property
    def is_float32(self) -> bool:
        return self.array.dtype == np.float32

    def source(self, number: int, /) -> FakeNode:
        return self.sources[number]

    @property
    def root(self) -> int:
        return self.viewed.identity if self.viewed else self.identity

    @property
    def source_roots(self) -> tuple[int, ...]:
        return tuple(each.root for each in self.sources)

    @property
    def size(self) -> int:
        return self.array.nbytes

    def leave_out(self) -> None:
        self.left_out.append(True)

    def take_in(self) -> None:
        self.left_out.append(False)

    def content(self) -> bytes:
        return self.array.tobytes()

    def fill(self, content: bytes, /) -> None:
        self.array[:] = np.frombuffer(content, self.array.dtype).reshape(self.array.shape)

    def values(self) -> NDArray[Any]:
        return self.array.reshape((1,) * (4 - self.array.ndim) + self.array.shape)


def weight(name: str, *shape: int) -> FakeNode:
    return FakeNode(name, np.zeros(shape, np.float32))
