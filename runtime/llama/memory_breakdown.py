"""The engine's own figures for the memory of a model: weights, KV cache and working buffers of each kind of buffer.

`llama_get_memory_breakdown` (src/llama-ext.h of llama.cpp) returns a std::map by value. It is read only for libstdc++
on x86-64 Linux, where its layout is known; elsewhere the result is None.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runtime.llama.backend import LlamaBackend
from runtime.llama.defaults import LOAD_NONE
from runtime.llama.native import library, native
from runtime.llama.open_options import OpenOptions

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
    """The memory of an open model for each kind of buffer; None if unknown."""
    tell = _breakdown()
    if tell is None:
        return None
    # struct std::map of libstdc++: comparison, then the header of its tree (colour, root, first, last), then the count.
    found = (ctypes.c_uint64 * 6)()
    tell(ctypes.addressof(found), ctypes.cast(backend._context, ctypes.c_void_p))
    # The few nodes of the map are never freed: only C++ could do that.
    uses, waiting = [], [found[2]]
    while waiting:
        node = waiting.pop()
        if node:
            _, _, left, right, buffer, *sizes = (ctypes.c_uint64 * 8).from_address(node)
            waiting += [left, right]
            uses.append(BufferUse(_buffer_name(buffer), *sizes))
    return tuple(sorted(uses, key=lambda use: use.buffer)) if len(uses) == found[5] else None


def breakdown(path: Path, options: OpenOptions) -> tuple[BufferUse, ...] | None:
    """The memory of a model opened with `options`, without allocating it or reading weights; None if unknown.

    Only for files that were tried before (`runtime.llama.trial_process`), because a damaged one may end the process.
    Raises EngineFailed and DoesNotFit as opening does.
    """
    if _breakdown() is None:
        return None
    with _Unallocated(path, options) as backend:
        return breakdown_of(backend)


class _Unallocated(LlamaBackend):
    """A model and its context without allocated memory. They cannot decode."""

    def _model_params(self, **given: Any) -> Any:
        return super()._model_params(**given, no_alloc=True, load_mode=LOAD_NONE)  # a mapping cannot be left out


@cache
def _breakdown() -> Any:
    """The engine's function; None if the layout of its result is unknown or the function is missing."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        return None
    tell = getattr(native._lib, _SYMBOL, None)
    if tell is not None:
        # On x86-64 the address for a large result is passed as the first argument.
        tell.argtypes, tell.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_void_p
    return tell


def _buffer_name(buffer: int) -> str:
    base = library("ggml-base")
    base.ggml_backend_buft_name.restype = ctypes.c_char_p
    base.ggml_backend_buft_name.argtypes = [ctypes.c_void_p]
    return bytes(base.ggml_backend_buft_name(buffer)).decode("utf-8", "replace")
