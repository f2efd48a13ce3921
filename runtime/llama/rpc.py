"""llama.cpp's RPC backend as a worker that lends this machine's devices.

What bites: the call aborts the process on a failure or never returns, so it belongs in a process of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.base.errors import EngineFailed
from runtime.llama.native import library

_CPU = 0  # enum ggml_backend_dev_type (ggml-backend.h)
_GET_MEMORY = 2  # struct ggml_backend_device_i (ggml-backend-impl.h), with which a device begins: the third function

# (a device, where to write the free bytes, where the total)
_MemoryCallback = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
)


def serve(
    endpoint: str, threads: int, cache: Path | None = None, memory: Callable[[], tuple[int, int]] | None = None
) -> None:
    """Lend this machine's GPUs, or its CPU where there is none, at "host:port". Does not return while it can listen.

    `cache` is a folder that keeps large tensors, so that they are sent once. `memory` tells the bytes of RAM that are
    lent, free and in all: the engine would tell all that the machine has. Raises EngineFailed when it cannot listen.
    """
    registry, base, rpc = library("ggml"), library("ggml-base"), library("ggml-rpc")
    registry.ggml_backend_load_all()
    registry.ggml_backend_dev_count.restype = ctypes.c_size_t
    registry.ggml_backend_dev_get.restype = ctypes.c_void_p
    registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    found = [registry.ggml_backend_dev_get(index) for index in range(registry.ggml_backend_dev_count())]
    cpus = [device for device in found if base.ggml_backend_dev_type(device) == _CPU]
    kept = [_tell_memory(base, device, memory) for device in cpus] if memory is not None else []
    lent = [device for device in found if device not in cpus] or cpus
    start = rpc.ggml_backend_rpc_start_server
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    start.restype = None
    devices = (ctypes.c_void_p * len(lent))(*lent)
    folder = None if cache is None else bytes(cache)
    start(endpoint.encode(), folder, threads, len(lent), ctypes.cast(devices, ctypes.c_void_p))
    del kept
    raise EngineFailed(f"the engine cannot listen at {endpoint}")


def _tell_memory(base: ctypes.CDLL, device: int, memory: Callable[[], tuple[int, int]]) -> object:
    """Let a device answer with `memory`; what is returned must be kept as long as it is asked."""

    def answer(_: int, free: Any, total: Any) -> None:
        free[0], total[0] = memory()

    callback = _MemoryCallback(answer)
    functions = ctypes.cast(device, ctypes.POINTER(ctypes.c_void_p))
    functions[_GET_MEMORY] = ctypes.cast(callback, ctypes.c_void_p)
    return callback
