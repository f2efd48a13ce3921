"""GPUs that nobody measured: what is assumed of them, and that no memory is given twice."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.llama import EngineDevice
from runtime.machine.gpus import assumed_speed, gpu_devices
from runtime.machine.machine import Link, Speed

GIB = 1 << 30
CPU = Speed(50e9, {"Q4_K": 40e9}, {"Q4_K": 10e9}, threads=8)


def fact(**changes: Any) -> EngineDevice:
    facts: dict[str, Any] = {
        "name": "CUDA0",
        "description": "NVIDIA GeForce RTX 3060",
        "kind": "gpu",
        "memory_total": 12 * GIB,
        "memory_free": 11 * GIB,
    }
    return EngineDevice(**facts | changes)


def test_no_gpu() -> None:
    cpu = fact(name="CPU", kind="cpu")
    blas = fact(name="BLAS", kind="accelerator")
    assert gpu_devices((cpu, blas), CPU, 16 * GIB) == ((), (), 0)


def test_a_card_with_memory_of_its_own() -> None:
    (found,), links, shared = gpu_devices((fact(),), CPU, 16 * GIB)
    assert (found.name, found.kind, found.memory_free, found.memory_total) == ("CUDA0", "gpu", 11 * GIB, 12 * GIB)
    assert found.description == "NVIDIA GeForce RTX 3060"
    assert found.speed.assumed
    assert found.speed.one["Q4_K"] == pytest.approx(0.6 * 360e9)
    assert found.speed.many["Q4_K"] == pytest.approx(0.3 * 360e9)
    assert links == (Link("CUDA0", 2e-5, 6e9),)
    assert shared == 0


def test_a_card_that_does_not_say_how_much_is_free_gets_nothing() -> None:
    (found,), _, _ = gpu_devices((fact(memory_free=0),), CPU, 16 * GIB)
    assert (found.memory_free, found.memory_total) == (0, 12 * GIB)
    assert found.description.endswith(": does not report its free memory, so nothing is placed there")


def test_a_card_that_says_nonsense() -> None:
    (found,), _, _ = gpu_devices((fact(memory_free=20 * GIB),), CPU, 16 * GIB)
    assert found.memory_free == 12 * GIB


def test_memory_that_is_shared_is_not_given_twice() -> None:
    first = fact(name="Vulkan0", kind="integrated gpu", description="Radeon 780M", memory_free=10 * GIB)
    second = fact(name="MTL0", description="Apple M9", memory_free=10 * GIB)
    (one, two), links, shared = gpu_devices((first, second), CPU, 12 * GIB)
    assert (one.memory_free, two.memory_free, shared) == (10 * GIB, 2 * GIB, 12 * GIB)
    assert one.speed.one["F16"] == pytest.approx(50e9)  # in no table: as fast as the memory they share
    assert {link.bandwidth for link in links} == {50e9}


def test_what_a_node_lends_is_not_here() -> None:
    assert gpu_devices((fact(name="RPC0[10.0.0.2:50052]"),), CPU, GIB) == ((), (), 0)


@pytest.mark.parametrize(
    ("description", "bandwidth"),
    [
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 504e9),
        ("nvidia a100-sxm4-80gb", 1555e9),
        ("NVIDIA L40S", 864e9),
        ("Apple M2 Max", 400e9),
        ("Apple M2", 100e9),
        ("A card of tomorrow", 128e9),
    ],
)
def test_bandwidth_by_name(description: str, bandwidth: float) -> None:
    assert assumed_speed(description).bandwidth == pytest.approx(0.6 * bandwidth)
