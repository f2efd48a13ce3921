"""llama.cpp's RPC backend: a worker that lends this machine's devices, and the devices that others lend.

What bites: both calls abort the process on a failure or never return, so they belong in a process of their own, after
`runtime.rpc.ask` has seen that there is a worker of the right release.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.errors import EngineFailed
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


def lent_devices(endpoints: tuple[str, ...]) -> ctypes.Array[ctypes.c_void_p]:
    """The devices of these workers for a model's `devices`, in order, ended by a null pointer."""
    base, rpc = library("ggml-base"), library("ggml-rpc")
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    rpc.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    base.ggml_backend_reg_dev_count.restype = ctypes.c_size_t
    base.ggml_backend_reg_dev_count.argtypes = [ctypes.c_void_p]
    base.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    found: list[int] = []
    for endpoint in endpoints:
        registered = rpc.ggml_backend_rpc_add_server(endpoint.encode())
        if not registered:
            raise EngineFailed(f"node {endpoint} offers no device")
        count = base.ggml_backend_reg_dev_count(registered)
        found += [base.ggml_backend_reg_dev_get(registered, index) for index in range(count)]
    return (ctypes.c_void_p * (len(found) + 1))(*found, None)


class _Override(ctypes.Structure):
    """struct llama_model_tensor_buft_override (llama.h)."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def kept_here(patterns: tuple[str, ...]) -> ctypes.Array[_Override]:
    """Tensors whose names match stay with this machine's CPU, for a model's `tensor_buft_overrides`."""
    base = library("ggml-base")
    base.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
    here = base.ggml_backend_cpu_buffer_type()
    return (_Override * (len(patterns) + 1))(*(_Override(pattern.encode(), here) for pattern in patterns))
