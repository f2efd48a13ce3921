"""The version and build of the installed engine, and the devices it sees."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from runtime.llama.native import ENGINE_VERSION, library, native


@dataclass(frozen=True, slots=True)
class EngineDevice:
    """A compute device that the engine sees. Memory in bytes, 0 if the device does not report it."""

    name: str
    description: str
    kind: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine: its version, devices, and features of its build."""

    version: str
    devices: tuple[EngineDevice, ...]
    rpc: bool
    gpu_offload: bool
    system_info: str


# enum ggml_backend_dev_type (ggml-backend.h)
_DEVICE_KINDS = {0: "cpu", 1: "gpu", 2: "integrated gpu", 3: "accelerator"}


def engine_info() -> EngineInfo:
    """The version and build of the installed engine, and the devices it sees."""
    registry, base = library("ggml"), library("ggml-base")
    registry.ggml_backend_load_all()
    registry.ggml_backend_dev_count.restype = ctypes.c_size_t
    registry.ggml_backend_dev_get.restype = ctypes.c_void_p
    registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
        getattr(base, name).restype = ctypes.c_char_p
        getattr(base, name).argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2]
    devices = []
    for index in range(registry.ggml_backend_dev_count()):
        device = registry.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        devices.append(
            EngineDevice(
                name=base.ggml_backend_dev_name(device).decode("utf-8", "replace"),
                description=base.ggml_backend_dev_description(device).decode("utf-8", "replace"),
                kind=_DEVICE_KINDS.get(base.ggml_backend_dev_type(device), "other"),
                memory_total=total.value,
                memory_free=free.value,
            )
        )
    return EngineInfo(
        version=ENGINE_VERSION,
        devices=tuple(devices),
        rpc=bool(native.llama_supports_rpc()),
        gpu_offload=bool(native.llama_supports_gpu_offload()),
        system_info=native.llama_print_system_info().decode("utf-8", "replace").strip(),
    )
