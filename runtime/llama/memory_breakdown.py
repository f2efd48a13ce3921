"""The engine's own breakdown of the memory a model takes: weights, KV cache and working buffers of each buffer.

`llama_get_memory_breakdown` (src/llama-ext.h of llama.cpp) returns a std::map by value. It is read here for the one
combination of library and calling convention in which its layout is known; everywhere else there is no breakdown.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runtime.llama.backend import LlamaBackend, OpenOptions
from runtime.llama.native import library, native

# llama_get_memory_breakdown(const llama_context *), as C++ names it.
_SYMBOL = "_Z26llama_get_memory_breakdownPK13llama_context"


@dataclass(frozen=True, slots=True)
class BufferUse:
    """Bytes in the buffers of one kind: "CPU", "CPU_Mapped" (the file), "CPU_REPACK", "CUDA0", "RPC0[host:port]"."""

    buffer: str
    weights: int
    kv_cache: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute


def breakdown_of(backend: LlamaBackend) -> tuple[BufferUse, ...] | None:
    """What an open model takes, by kind of buffer; None where the engine does not tell."""
    tell = _breakdown()
    if tell is None:
        return None
    # struct std::map of libstdc++: comparison, then the header of its tree (colour, root, first, last), then the count.
    found = (ctypes.c_uint64 * 6)()
    tell(ctypes.addressof(found), ctypes.cast(backend._context, ctypes.c_void_p))
    # The few nodes of the map are never given back: only C++ could do that.
    uses, waiting = [], [found[2]]
    while waiting:
        node = waiting.pop()
        if node:
            _, _, left, right, buffer, *sizes = (ctypes.c_uint64 * 8).from_address(node)
            waiting += [left, right]
            uses.append(BufferUse(_buffer_name(buffer), *sizes))
    return tuple(sorted(uses, key=lambda use: use.buffer)) if len(uses) == found[5] else None


def breakdown(path: Path, options: OpenOptions) -> tuple[BufferUse, ...] | None:
    """What a model that is opened so would take; nothing is allocated and no weights are read.

    For a file that has been opened before (`runtime.llama.trial`): a damaged one may end the process. None where the
    engine does not tell; raises EngineFailed and DoesNotFit as opening does.
    """
    if _breakdown() is None:
        return None
    with _Unallocated(path, options) as backend:
        return breakdown_of(backend)


class _Unallocated(LlamaBackend):
    """A model and its context without memory behind them: they can be asked, and not decode."""

    def _model_params(self) -> Any:
        params = super()._model_params()
        params.no_alloc = True
        params.load_mode = 0  # LLAMA_LOAD_MODE_NONE: mapping and no_alloc exclude each other
        return params


@cache
def _breakdown() -> Any:
    """The engine's function; None where its result has another layout or the function is not there."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        return None
    tell = getattr(native._lib, _SYMBOL, None)
    if tell is not None:
        # On x86-64 the place for a large result is handed over as a first argument.
        tell.argtypes, tell.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_void_p
    return tell


def _buffer_name(buffer: int) -> str:
    base = library("ggml-base")
    base.ggml_backend_buft_name.restype = ctypes.c_char_p
    base.ggml_backend_buft_name.argtypes = [ctypes.c_void_p]
    return bytes(base.ggml_backend_buft_name(buffer)).decode("utf-8", "replace")
