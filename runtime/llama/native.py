"""The engine: its log, the libraries that libllama uses, its devices."""

from __future__ import annotations

import ctypes
import os
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from runtime.base.errors import EngineFailed
from runtime.base.quoted import quoted
from runtime.gguf.engine_lists import ENGINE_VERSION
from runtime.llama.bindings import native

__all__ = ["ENGINE_VERSION", "library", "log", "native"]

_ERROR = 4  # enum ggml_log_level (ggml.h)
_CONTINUED = 5
_PREFIX = re.compile(r"^(?:error loading model[ a-z]*: )+")


class _Log:
    """The last error lines of the engine, for error messages."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)
        self._level = 0
        self._callback = native.llama_log_callback(self._hear)
        native.llama_log_set(self._callback, None)

    def _hear(self, level: int, text: bytes, _: object) -> None:
        if level != _CONTINUED:
            self._level = level
        if self._level == _ERROR and text.strip():
            self._errors.append(text.decode("utf-8", "replace").strip())
        if os.environ.get("DSR_DEBUG") == "1":
            os.write(2, text)

    def take(self, fallback: str = "it gave no reason") -> str:
        """The first error since the last call, in one line without the name of the C function; later ones follow from
        it. It may repeat text of a file."""
        said = self._errors[0].split(": ", 1)[-1] if self._errors else fallback
        self._errors.clear()
        return quoted(_PREFIX.sub("", said))


native.llama_backend_init()
# GGML_NUMA_STRATEGY_DISABLED, as llama.cpp's programs do by default. The other strategies pin threads to cores, also to
# those that other programs use; whoever knows the nodes of a machine starts dsr with numactl.
native.llama_numa_init(0)
log = _Log()


def library(stem: str) -> ctypes.CDLL:
    """A library that libllama uses, loaded by the linked file name: another name would map a second copy."""
    folder = Path(str(native.__file__)).parent / "lib"
    for name in (f"lib{stem}.so.0", f"lib{stem}.0.dylib", f"lib{stem}.dylib", f"{stem}.dll", f"lib{stem}.so"):
        if (folder / name).exists():
            return ctypes.CDLL(str(folder / name))
    raise EngineFailed(f"the engine's library {stem} is not in {folder}", hint="reinstall llama-cpp-python")


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
        system_info=features(),
    )


def features() -> str:
    """The features of the engine's build and of this CPU, as the engine names them."""
    return str(native.llama_print_system_info().decode("utf-8", "replace").strip())
