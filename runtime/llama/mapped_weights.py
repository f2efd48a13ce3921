"""Lets the matrices of all layers lie in the mapped model file, page by page as they are needed.

The engine maps a whole file too, but it fills all pages when it loads (MAP_POPULATE in src/llama-mmap.cpp): for a model
that is larger than memory it reads the file once in vain. Here a page is read when the engine computes with it, and
`forget` takes it out of this process.
"""

from __future__ import annotations

import mmap
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from runtime.base.errors import DsrError
from runtime.from_disk.units import Stack, Units
from runtime.gguf.card import ModelCard, layer_count
from runtime.llama.reserved_buffer import ReservedBuffer


class MappedWeights:
    """The matrices of a model's layers. Load it with the overrides of `buffer`, then call `settle`."""

    def __init__(self, card: ModelCard) -> None:
        """Raises DsrError for a file that cannot be mapped."""
        self._stacks = _matrices(card)
        layers = tuple(sorted({stack.index for stack in self._stacks}))
        self.buffer = ReservedBuffer(Units(layers, 1, self._stacks, routed=False))
        self._maps: list[mmap.mmap] = []
        with ExitStack() as opening:
            for path in card.files:
                self._maps.append(_mapped(path))
                opening.callback(self._maps[-1].close)
            self._views = [np.frombuffer(each, np.uint8) for each in self._maps]
            opening.pop_all()

    def settle(self) -> None:
        """After loading: let the tensors lie in the file."""
        for stack in self._stacks:
            if (tensor := self.buffer.tensors.get(stack.name)) is not None:
                tensor.lie_at(int(self._views[stack.file].ctypes.data) + stack.offset)
                tensor.show()

    def forget(self) -> None:
        """Take the pages out of this process. The system may keep them in its cache."""
        for each in self._maps:
            each.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """After the model was freed, which computes from this memory."""
        self._views.clear()
        for each in self._maps:
            each.close()


def _matrices(card: ModelCard) -> tuple[Stack, ...]:
    """No layer predicts ahead (MTP): the engine does not load those. `index` is the number of the layer."""
    return tuple(
        Stack(each.name, each.layer, each.file, each.offset, each.size, 1)
        for each in card.tensors
        if each.layer is not None and each.layer < layer_count(card) and len(each.shape) > 1
    )


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DsrError(f"{path}: cannot be mapped: {error}") from error
