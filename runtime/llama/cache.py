"""The cache of a context, by sequences: copies, trims, checkpoints and saved states.

Layers with a sliding window keep only the cells that a next token can see (src/llama-kv-cache-iswa.cpp), and recurrent
layers only their last state (src/llama-memory-recurrent.cpp). Trimming cannot bring back more. A checkpoint is the
state that llama.cpp writes with LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, as its server uses it.
"""

from __future__ import annotations

import ctypes
from typing import Any

from runtime.engine.backend import Checkpoint
from runtime.llama.native import log, native

_WHOLE, _PARTIAL = 0, 1  # llama_state_seq_flags (llama.h)


class SequenceCache:
    """The cache of a context. All its sequences share the cells."""

    def __init__(self, model: Any, context: Any) -> None:
        self._context = context
        self._memory = native.llama_get_memory(context)
        self._recurrent = is_recurrent(model)

    @property
    def cuts_anywhere(self) -> bool:
        """Whether `trim` can go back to any length."""
        return not self._recurrent

    def length(self, slot: int) -> int:
        """The number of tokens that a slot holds."""
        return int(native.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def fork(self, source: int, target: int) -> None:
        """As `Backend.fork`. The copy shares the cells of its source."""
        if source == target:
            return
        native.llama_memory_seq_rm(self._memory, target, -1, -1)
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def trim(self, slot: int, length: int) -> bool:
        """As `Backend.trim`."""
        return bool(native.llama_memory_seq_rm(self._memory, slot, length or -1, -1))

    def earliest(self, slot: int) -> int:
        """As `Backend.earliest`."""
        return max(1, self.length(slot)) if self._recurrent else 1

    def checkpoint(self, slot: int) -> Checkpoint | None:
        """As `Backend.checkpoint`."""
        length = self.length(slot)
        if self.cuts_anywhere or not length:
            return None
        data = self._state(slot, _PARTIAL)
        return Checkpoint(length, len(data), data) if data else None

    def restore(self, checkpoint: Checkpoint, slot: int) -> bool:
        """As `Backend.restore`."""
        # First the state, then the cells after it, as llama-server does: only the state says where the sequence ends.
        if (
            self.length(slot) >= checkpoint.length
            and self._set(slot, checkpoint.data, _PARTIAL)
            and native.llama_memory_seq_rm(self._memory, slot, checkpoint.length, -1)
            and self.length(slot) == checkpoint.length
        ):
            return True
        self.trim(slot, 0)
        return False

    def save(self, slot: int) -> bytes | None:
        """As `Backend.save`."""
        return self._state(slot, _WHOLE) if self.length(slot) else None

    def load(self, slot: int, data: bytes) -> bool:
        """As `Backend.load`."""
        self.trim(slot, 0)
        if self._set(slot, data, _WHOLE) and self.length(slot):
            return True
        self.trim(slot, 0)
        return False

    def _state(self, slot: int, flags: int) -> bytes | None:
        size = native.llama_state_seq_get_size_ext(self._context, slot, flags)
        if not size:
            return None
        state = bytearray(size)
        buffer = (ctypes.c_uint8 * size).from_buffer(state)
        written = native.llama_state_seq_get_data_ext(self._context, buffer, size, slot, flags)
        del buffer
        return bytes(state) if written == size else None

    def _set(self, slot: int, data: bytes, flags: int) -> bool:
        log.take()
        buffer = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))
        read = native.llama_state_seq_set_data_ext(self._context, buffer, len(data), slot, flags)
        log.take()  # a refusal is no error of a later call
        return bool(read == len(data))


def is_recurrent(model: Any) -> bool:
    """Whether some layers of the model have a recurrent state."""
    return bool(native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model))
