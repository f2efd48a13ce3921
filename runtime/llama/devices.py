"""Finds the devices for a model's layers: those of nodes, and the local GPUs.

The engine's connection to a node aborts the process on a failure or never returns. So call this in a child process,
after `runtime.nodes.client.ask` has found a node with the right protocol version.
"""

from __future__ import annotations

import ctypes

from runtime.base.errors import EngineFailed
from runtime.llama.native import library


def devices_of(nodes: tuple[str, ...], gpus: tuple[str, ...]) -> ctypes.Array[ctypes.c_void_p]:
    """All devices of `nodes`, then the local GPUs called `gpus`, as a null-terminated array for a model's `devices`.

    Raises EngineFailed for a missing device.
    """
    found = [device for endpoint in nodes for device in _node_devices(endpoint)] + [_local_gpu(name) for name in gpus]
    return (ctypes.c_void_p * (len(found) + 1))(*found, None)


def _node_devices(endpoint: str) -> list[int]:
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


def _local_gpu(name: str) -> int:
    registry = library("ggml")
    registry.ggml_backend_load_all()
    registry.ggml_backend_dev_by_name.restype = ctypes.c_void_p
    registry.ggml_backend_dev_by_name.argtypes = [ctypes.c_char_p]
    device = registry.ggml_backend_dev_by_name(name.encode())
    if device is None:
        raise EngineFailed(f"the engine no longer sees {name}", hint="dsr doctor lists the devices it sees")
    return int(device)


class Override(ctypes.Structure):
    """struct llama_model_tensor_buft_override (llama.h)."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def kept_here(patterns: tuple[str, ...]) -> ctypes.Array[Override]:
    """Overrides that keep tensors with matching names on the local CPU, for a model's `tensor_buft_overrides`."""
    base = library("ggml-base")
    base.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
    here = base.ggml_backend_cpu_buffer_type()
    return (Override * (len(patterns) + 1))(*(Override(pattern.encode(), here) for pattern in patterns))
