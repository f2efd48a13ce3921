"""Machines and models to plan with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsr.models import library
from dsr.plan.planned_model import PlannedModel
from runtime.gguf.reader import read_card
from runtime.machine.machine import Device, Link, Machine, Speed
from tests.gguf_writer import llama_metadata, llama_tensors, write

MIB, GIB = 1 << 20, 1 << 30
NANO = library.find("nano")


def cpu(memory: int = 16 * GIB, bandwidth: float = 20e9) -> Device:
    return Device("CPU", "cpu", memory, memory, Speed(bandwidth, {}, {}, per_layer=1e-5))


def gpu(memory: int = 8 * GIB) -> Device:
    return Device("CUDA0", "gpu", memory, memory, Speed(400e9, {}, {}, per_layer=1e-5))


def a_machine(*devices: Device, **fields: Any) -> Machine:
    links = (Link("CUDA0", 1e-5, 1e10),) if len(devices) > 1 else ()
    return Machine("test", devices or (cpu(),), links, disk_read=fields.pop("disk_read", 1e9), **fields)


def nano() -> PlannedModel:
    return PlannedModel("nano", "nano", "Q8_0", read_card(NANO.path))


def tiny(tmp_path: Path, **metadata: Any) -> PlannedModel:
    path = write(tmp_path / "tiny-F32.gguf", llama_metadata(**metadata), llama_tensors())
    return PlannedModel(str(path), "Tiny", "F32", read_card(path))
