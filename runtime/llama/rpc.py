"""Serves this machine's devices with llama.cpp's RPC backend.

The call aborts the process on a failure or never returns, so it needs its own process.
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
    """Serve this machine's GPUs, or its CPU if there are none, at "host:port". Does not return while it can listen.

    `cache` is a folder that keeps large tensors, so that they are sent once. `memory` returns the free and total bytes
    of RAM to report; by default the engine reports all of the machine. Raises EngineFailed if it cannot listen.
    """
    registry, base, rpc = library("ggml"), library("ggml-base"), library("ggml-rpc")
    registry.ggml_backend_load_all()
    registry.ggml_backend_dev_count.restype = ctypes.c_size_t
    registry.ggml_backend_dev_get.restype = ctypes.c_void_p
    registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    found = [registry.ggml_backend_dev_get(index) for index in range(registry.ggml_backend_dev_count())]
    cpus = [device for device in found if base.ggml_backend_dev_type(device) == _CPU]
    kept = [_report_memory(base, device, memory) for device in cpus] if memory is not None else []
    served = [device for device in found if device not in cpus] or cpus
    start = rpc.ggml_backend_rpc_start_server
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    start.restype = None
    devices = (ctypes.c_void_p * len(served))(*served)
    folder = None if cache is None else bytes(cache)
    start(endpoint.encode(), folder, threads, len(served), ctypes.cast(devices, ctypes.c_void_p))
    del kept
    raise EngineFailed(f"the engine cannot listen at {endpoint}")


def _report_memory(base: ctypes.CDLL, device: int, memory: Callable[[], tuple[int, int]]) -> object:
    """Make a device report `memory`. Keep the result alive as long as the device is used."""

    def answer(_: int, free: Any, total: Any) -> None:
        free[0], total[0] = memory()

    callback = _MemoryCallback(answer)
    functions = ctypes.cast(device, ctypes.POINTER(ctypes.c_void_p))
    functions[_GET_MEMORY] = ctypes.cast(callback, ctypes.c_void_p)
    return callback
