"""The GPUs of this machine with speeds assumed from their names, on the careful side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.gguf.types import BY_NAME, NOT_FOR_WEIGHTS
from runtime.machine.machine import Device, Link, Speed

if TYPE_CHECKING:
    from runtime.llama import EngineDevice

# Memory bandwidth in GB/s from the makers' data sheets, by a part of the name; the longest part that fits counts.
_BANDWIDTH = {
    "RTX 5090": 1792, "RTX 5080": 960, "RTX 5070 Ti": 896, "RTX 5070": 672, "RTX 5060": 448,
    "RTX 4090": 1008, "RTX 4080": 717, "RTX 4070 Ti": 504, "RTX 4070": 504, "RTX 4060": 272,
    "RTX 3090": 936, "RTX 3080": 760, "RTX 3070": 448, "RTX 3060": 360, "RTX 3050": 224,
    "RTX 2080": 448, "RTX 2070": 448, "RTX 2060": 336, "GTX 1660": 192, "GTX 1650": 128, "GTX 1080": 320,
    "A100": 1555, "H100": 2000, "H200": 4800, "L40": 864, "L4": 300, "A10": 600, "A40": 696, "T4": 320, "V100": 900,
    "P40": 346, "RX 7900": 800, "RX 7800": 624, "RX 7600": 288, "RX 6900": 512, "RX 6800": 512, "RX 6700": 384,
    "RX 9070": 640, "Arc A770": 512, "Arc B580": 456,
    "Apple M1": 68, "Apple M1 Pro": 200, "Apple M1 Max": 400, "Apple M1 Ultra": 800,
    "Apple M2": 100, "Apple M2 Pro": 200, "Apple M2 Max": 400, "Apple M2 Ultra": 800,
    "Apple M3": 100, "Apple M3 Pro": 150, "Apple M3 Max": 300, "Apple M3 Ultra": 800,
    "Apple M4": 120, "Apple M4 Pro": 273, "Apple M4 Max": 410,
}  # fmt: skip
_UNKNOWN = 128  # GB/s of an unknown card: the slowest still in use
_REACHED = 0.6  # the share of it that kernels for quantized weights reach with one token
_MANY = 0.5  # the share of that speed with eight tokens
_PER_LAYER = 1e-4  # seconds: about twenty kernels with a few microseconds to start each
_PCIE = Link("", 2e-5, 6e9)  # PCIe 3 with 8 lanes, and the time of a small copy there and back


def local_gpus(facts: Sequence[EngineDevice]) -> tuple[EngineDevice, ...]:
    """The GPUs of this machine, without the devices of nodes."""
    return tuple(each for each in facts if each.kind in ("gpu", "integrated gpu") and not each.name.startswith("RPC"))


def gpu_devices(
    facts: Sequence[EngineDevice], cpu: Speed, available: int
) -> tuple[tuple[Device, ...], tuple[Link, ...], int]:
    """The GPUs that the engine sees, the links to them, and the bytes of `available` memory that they share.

    Shared memory counts for the GPU and no longer for the CPU. A GPU that does not report its free memory counts as
    having none, and its description says so.
    """
    found, links, shared = [], [], 0
    for fact in local_gpus(facts):
        sharing = fact.kind == "integrated gpu" or fact.description.startswith("Apple ")
        free = max(0, min(fact.memory_free, fact.memory_total))
        if sharing:
            free = min(free, available - shared)
            shared += free
        note = "" if fact.memory_free else ": does not report its free memory, so nothing is placed there"
        speed = assumed_speed(fact.description, cpu if sharing else None)
        found.append(
            Device(fact.name, "gpu", free, max(fact.memory_total, 0), speed, description=f"{fact.description}{note}")
        )
        links.append(Link(fact.name, _PCIE.round_trip, cpu.bandwidth if sharing else _PCIE.bandwidth))
    return tuple(found), tuple(links), shared


def assumed_speed(description: str, sharing: Speed | None = None) -> Speed:
    """The speed of a GPU by its name. An unknown GPU that shares memory is as fast as that memory."""
    text = description.lower()
    names = [name for name in _BANDWIDTH if name.lower() in text]
    if names:
        bandwidth = _BANDWIDTH[max(names, key=len)] * 1e9
    else:
        bandwidth = sharing.bandwidth / _REACHED if sharing else _UNKNOWN * 1e9
    one = bandwidth * _REACHED
    weights = [name for name in BY_NAME if name not in NOT_FOR_WEIGHTS]
    return Speed(
        bandwidth=one,
        one=dict.fromkeys(weights, one),
        many=dict.fromkeys(weights, one * _MANY),
        attention={"F16": one / 2},
        per_layer=_PER_LAYER,
        per_expert_layer=_PER_LAYER / 5,
        assumed=True,
    )
