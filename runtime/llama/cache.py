"""The sequences in the cache of a context: copies, trims, checkpoints and saved states.

Layers with a sliding window keep only the cells that the next token can see (src/llama-kv-cache-iswa.cpp), and
recurrent layers only their last states (src/llama-memory-recurrent.cpp). Trimming cannot bring back more. A checkpoint
is the state that llama.cpp writes with LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, as its server uses it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from runtime.base.errors import EngineFailed
from runtime.engine.backend import Batch, Checkpoint
from runtime.llama.native import log, native

_WHOLE, _PARTIAL = 0, 1  # llama_state_seq_flags (llama.h)
_CHUNKED = "llama4"  # the one architecture whose windows are chunks: src/models/llama4.cpp

# Python's C API allows writing to new bytes before anybody else sees them. That saves clearing and copying a state.
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, [ctypes.c_char_p, ctypes.c_ssize_t]


@dataclass(frozen=True, slots=True)
class Window:
    """The last `size` tokens that a layer sees; `chunked` windows begin at multiples of their size.

    Source: llama_hparams::is_masked_swa in src/llama-hparams.h.
    """

    size: int
    chunked: bool = False

    def earliest(self, first: int) -> int:
        """The shortest length above 0 after which a token sees no lost position; `first` is the first one kept."""
        if self.chunked:
            return max(1, -(-first // self.size) * self.size)
        return max(1, first + self.size - 1) if first else 1


class SequenceCache:
    """The cache of a context. Its sequences share cells, except those of recurrent layers and short windows."""

    def __init__(self, model: Any, context: Any, *, full: bool, shiftable: bool) -> None:
        """`full`: layers with a window keep all cells, so that sequences share them. `shiftable`: `keys_can_shift`."""
        self._context = context
        self._memory = native.llama_get_memory(context)
        self._shiftable = shiftable
        self._recurrent = is_recurrent(model)
        self._window = _window(model, context)
        self._short = self._window is not None and not full
        self._undone = int(native.llama_n_rs_seq(context))
        self._begun: dict[int, int] = {}  # by slot: the first position of its last batch, or where a state was set

    @property
    def cuts_anywhere(self) -> bool:
        """Whether `trim` can go back to any length."""
        return not self._recurrent and not self._short

    def length(self, slot: int) -> int:
        """The number of tokens that a slot holds."""
        return int(native.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def decoded(self, batch: Batch) -> None:
        """Record a batch that was decoded."""
        if self._undone:
            for slot, position in zip(reversed(batch.slots), reversed(batch.positions), strict=True):
                self._begun[slot] = position

    def fork(self, source: int, target: int) -> None:
        """As `Backend.fork`."""
        if source == target:
            return
        native.llama_memory_seq_rm(self._memory, target, -1, -1)
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        # The engine never reuses a window cell that two sequences share, and a shared recurrent state has one position
        # for both. So the copy gets its own.
        if (self._short or self._undone) and (length := self.length(source)):
            state = self._state(source, _PARTIAL)
            if state is None or not self._set(target, state, _PARTIAL) or self.length(target) != length:
                raise EngineFailed(f"the engine cannot copy sequence {source} of {length} tokens")
            self._begun[target] = length

    def trim(self, slot: int, length: int) -> bool:
        """As `Backend.trim`."""
        if 0 < length < self.length(slot):
            if length < self.earliest(slot):
                return False
            self._begun[slot] = length  # the engine can go back only once
        return bool(native.llama_memory_seq_rm(self._memory, slot, length or -1, -1))

    def earliest(self, slot: int) -> int:
        """As `Backend.earliest`."""
        length = self.length(slot)
        if self._recurrent:
            # After each of the last tokens of a batch a state is kept; none of them is the state before the batch.
            kept = min(self._undone, length - self._begun.get(slot, length) - 1)
            return max(1, length - max(0, kept))
        if self._window is None or not length:
            return 1
        first = int(native.llama_memory_seq_pos_min(self._memory, slot))
        return min(length, self._window.earliest(first))

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
            self._begun[slot] = checkpoint.length
            return True
        self.trim(slot, 0)
        return False

    @property
    def can_graft(self) -> bool:
        """As `Backend.can_graft`. `llama_memory_can_shift` is true for recurrent states, too, which cannot be cut."""
        return self._shiftable and self.cuts_anywhere and bool(native.llama_memory_can_shift(self._memory))

    def graft(self, source: int, begin: int, end: int, target: int) -> None:
        """As `Backend.graft`. The engine rotates the keys before the next batch (llama_kv_cache::build_graph_shift)."""
        length = self.length(target)
        native.llama_memory_seq_rm(self._memory, source, end, -1)
        native.llama_memory_seq_rm(self._memory, source, 0, begin)
        native.llama_memory_seq_add(self._memory, source, begin, end, length - begin)
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        native.llama_memory_seq_rm(self._memory, source, -1, -1)

    def save(self, slot: int) -> bytes | None:
        """As `Backend.save`."""
        return self._state(slot, _WHOLE) if self.length(slot) else None

    def load(self, slot: int, data: bytes) -> bool:
        """As `Backend.load`."""
        self.trim(slot, 0)
        if self._set(slot, data, _WHOLE) and (length := self.length(slot)):
            self._begun[slot] = length
            return True
        self.trim(slot, 0)
        return False

    def _state(self, slot: int, flags: int) -> bytes | None:
        size = native.llama_state_seq_get_size_ext(self._context, slot, flags)
        if not size:
            return None
        state: bytes = _new_bytes(None, size)
        written = native.llama_state_seq_get_data_ext(self._context, _address(state), size, slot, flags)
        return state if written == size else None

    def _set(self, slot: int, data: bytes, flags: int) -> bool:
        read = native.llama_state_seq_set_data_ext(self._context, _address(data), len(data), slot, flags)
        log.take()  # a refusal is not the reason of a later error
        return bool(read == len(data))


def is_recurrent(model: Any) -> bool:
    """Whether some layers of the model have a recurrent state."""
    return bool(native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model))


def window_size(model: Any) -> int:
    """The tokens that layers with a sliding window see; 0 without any, or where the engine cannot copy their cells."""
    return int(native.llama_model_n_swa(model))  # 0 for deepseek4, whose windows have compressed rows besides


def _window(model: Any, context: Any) -> Window | None:
    # Some files name a window that the engine does not use (src/models/exaone4.cpp). Then a cache has no other part.
    parts = {int(native.llama_state_seq_get_size_ext(context, 0, flags)) for flags in (_WHOLE, _PARTIAL)}
    if not window_size(model) or len(parts) == 1:
        return None
    return Window(window_size(model), chunked=_metadata(model, "general.architecture") == _CHUNKED)


def keys_can_shift(model: Any, params: Any) -> bool:
    """Whether cached keys can be shifted to other positions in a context with these parameters.

    The engine calls RoPE on them (llama_kv_cache::build_rope_shift). ggml has it for float16 and float32. With
    quantized keys the engine crashes, unless it also rotates them, which depends on the width of a head. YaRN and its
    relatives would make all keys longer each time.
    """
    scaling = _metadata(model, f"{_metadata(model, 'general.architecture')}.rope.scaling.type")
    if params.rope_scaling_type != native.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED:
        plain = params.rope_scaling_type <= native.LLAMA_ROPE_SCALING_TYPE_LINEAR
    else:
        plain = scaling in ("", "none", "linear")
    return plain and params.type_k in (native.GGML_TYPE_F32, native.GGML_TYPE_F16)


def _metadata(model: Any, key: str) -> str:
    """A short text of the file; "" where it has none of this name."""
    text = ctypes.create_string_buffer(64)
    native.llama_model_meta_val_str(model, key.encode(), text, len(text))
    return text.value.decode()


def _address(data: bytes) -> Any:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))
