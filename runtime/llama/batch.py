"""The memory of a llama_batch."""

from __future__ import annotations

import ctypes
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.engine.backend import Batch
from runtime.llama.native import native


class NativeBatch:
    """The arrays of a llama_batch, refilled by slices because setting ctypes elements in a loop is slow.

    `hidden` has a row for each token if the batch carries hidden states besides tokens.
    """

    def __init__(self, capacity: int, hidden: NDArray[np.float32] | None = None) -> None:
        self._arrays = [array("i", bytes(4 * capacity)) for _ in range(3)]
        self._flags = bytearray(capacity)
        counts = array("i", [1]) * capacity
        slots = self._arrays[2].buffer_info()[0]
        # Row i points at its own slot number: every token belongs to exactly one sequence.
        pointers = array("Q", range(slots, slots + 4 * capacity, 4))
        self._kept = (counts, pointers, hidden)
        self._token, self._position, self._slot = (memoryview(cells) for cells in self._arrays)
        int32 = ctypes.POINTER(ctypes.c_int32)
        batch = native.llama_batch()
        batch.token, batch.pos, _ = (ctypes.cast(cells.buffer_info()[0], int32) for cells in self._arrays)
        batch.n_seq_id = ctypes.cast(counts.buffer_info()[0], int32)
        batch.seq_id = ctypes.cast(pointers.buffer_info()[0], ctypes.POINTER(int32))
        flags = (ctypes.c_int8 * capacity).from_buffer(self._flags)
        batch.logits = ctypes.cast(flags, ctypes.POINTER(ctypes.c_int8))
        batch.embd = None if hidden is None else hidden.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self.native = batch

    def fill(self, batch: Batch) -> Any:
        count = len(batch.tokens)
        self._token[:count] = array("i", batch.tokens)
        self._position[:count] = array("i", batch.positions)
        self._slot[:count] = array("i", batch.slots)
        wanted = bytearray(count)
        for row in batch.outputs:
            wanted[row] = 1
        self._flags[:count] = wanted
        self.native.n_tokens = count
        return self.native
