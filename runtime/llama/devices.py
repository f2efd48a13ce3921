"""The devices that a model's layers are dealt out to: those that nodes lend, and this machine's own GPUs.

What bites: speaking to a node aborts the process on a failure or never returns, so that belongs in a process of its
own, after `runtime.nodes.client.ask` has seen that there is a worker of the right release.
"""

from __future__ import annotations

import ctypes

from runtime.base.errors import EngineFailed
from runtime.llama.native import library


def devices_of(nodes: tuple[str, ...], gpus: tuple[str, ...]) -> ctypes.Array[ctypes.c_void_p]:
    """All devices of these workers, then the GPUs of these names, for a model's `devices`, ended by a null pointer.

    Raises EngineFailed for one that is not there.
    """
    found = [device for endpoint in nodes for device in _lent(endpoint)] + [_own(name) for name in gpus]
    return (ctypes.c_void_p * (len(found) + 1))(*found, None)


def _lent(endpoint: str) -> list[int]:
    base, rpc = library("ggml-base"), library("ggml-rpc")
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    rpc.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    base.ggml_backend_reg_dev_count.restype = ctypes.c_size_t
    base.ggml_backend_reg_dev_count.argtypes = [ctypes.c_void_p]
    base.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    registered = rpc.ggml_backend_rpc_add_server(endpoint.encode())
    if not registered:
        raise EngineFailed(f"node {endpoint} offers no device")
    count = base.ggml_backend_reg_dev_count(registered)
    return [base.ggml_backend_reg_dev_get(registered, index) for index in range(count)]


def _own(name: str) -> int:
    registry = library("ggml")
    registry.ggml_backend_load_all()
    registry.ggml_backend_dev_by_name.restype = ctypes.c_void_p
    registry.ggml_backend_dev_by_name.argtypes = [ctypes.c_char_p]
    device = registry.ggml_backend_dev_by_name(name.encode())
    if device is None:
        raise EngineFailed(f"the engine does not see {name} any more", hint="dsr doctor lists the devices it sees")
    return int(device)


class _Override(ctypes.Structure):
    """struct llama_model_tensor_buft_override (llama.h)."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def kept_here(patterns: tuple[str, ...]) -> ctypes.Array[_Override]:
    """Tensors whose names match stay with this machine's CPU, for a model's `tensor_buft_overrides`."""
    base = library("ggml-base")
    base.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
    here = base.ggml_backend_cpu_buffer_type()
    return (_Override * (len(patterns) + 1))(*(_Override(pattern.encode(), here) for pattern in patterns))
