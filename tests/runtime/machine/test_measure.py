"""Measuring a machine: what is asked of the engine for which model, what is kept, and machines that are not plain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import pytest

import runtime.machine.host
from runtime.base.errors import UsageError
from runtime.base.events import Event, Progress
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from runtime.llama import EngineDevice, EngineInfo, kernel_speed
from runtime.machine import measure
from runtime.machine.host import CgroupMemory, Host, probe
from runtime.machine.machine import Machine
from runtime.machine.measure import (
    COMMON_TYPES,
    are_plausible,
    contradicting,
    fewest_of_the_fastest,
    fingerprint,
    measure_machine,
)

GIB = 1 << 30


class FakeSpeedTest:
    """Answers with figures of its own, and notes what was asked. Two threads are worth it, four and more are not."""

    asked: ClassVar[list[tuple[Any, ...]]] = []
    slowest = 1e9

    def __init__(self, threads: int, *, reorders: bool = True) -> None:
        self.threads = threads
        self.reorders = reorders

    def __enter__(self) -> FakeSpeedTest:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def matrix(self, type_name: str, width: int, size: int, columns: Sequence[int]) -> list[float]:
        self.asked.append(("matrix", type_name, width, size, self.threads))
        usual = self.slowest if self.reorders else self.slowest / 4
        return [usual * min(self.threads, 2) / column for column in columns]

    def experts(self, type_name: str, width: int) -> list[float]:
        self.asked.append(("experts", type_name, width))
        return [3 * (self.slowest if self.reorders else self.slowest / 4)]

    def attention(self, kv_type: str, key: int, value: int, heads: int) -> list[float]:
        self.asked.append(("attention", kv_type, key, value, heads))
        return [5e9]

    def operation(self, width: int, rows: Sequence[int]) -> list[float]:
        self.asked.append(("operation", width, *rows))
        return [1e-6 + 1e-7 * count for count in rows]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeSpeedTest]:
    monkeypatch.setattr(kernel_speed, "SpeedTest", FakeSpeedTest)
    monkeypatch.setattr(measure, "largest_cache", lambda root: 32 << 20)
    monkeypatch.setattr(measure, "strong_cores", lambda root: None)
    monkeypatch.setattr(FakeSpeedTest, "asked", [])
    return FakeSpeedTest


def host(**changes: Any) -> Host:
    facts: dict[str, Any] = {
        "platform": "Linux x86_64",
        "cpu": "A processor",
        "cores": 8,
        "threads": 16,
        "features": ("avx2",),
        "memory_total": ByteCount(16 * GIB),
        "memory_available": ByteCount(12 * GIB),
        "memory_limited_by": "the machine",
        "disk_free": ByteCount(GIB),
    }
    return Host(**facts | changes)


def engine(*devices: EngineDevice) -> EngineInfo:
    return EngineInfo("1", (EngineDevice("CPU", "A processor", "cpu", 0, 0), *devices), False, False, "")


@pytest.fixture
def nano() -> ModelCard:
    return read_card(Path(__file__).parents[3] / "dsr/data/nano.gguf")


def matrices(fake: type[FakeSpeedTest]) -> list[tuple[Any, ...]]:
    return [each[1:4] for each in fake.asked if each[0] == "matrix"]


def test_a_model_is_measured_as_it_is(nano: ModelCard, fake: type[FakeSpeedTest]) -> None:
    machine = measure_machine(host(cores=1), engine(), nano)
    size = nano.weights_size
    assert matrices(fake) == [("Q8_0", 192, size), ("F32", 256, size), ("F16", 4096, size)]
    assert ("attention", "f16", 288, 256, 4) in fake.asked
    (cpu,) = machine.devices
    assert set(cpu.speed.one) == set(cpu.speed.two) == set(cpu.speed.many) == {"Q8_0", "F32"}
    assert (cpu.speed.one["Q8_0"], cpu.speed.two["Q8_0"], cpu.speed.many["Q8_0"]) == (1e9, 5e8, 1.25e8)
    assert cpu.speed.further == {"Q8_0": 3e9}
    assert cpu.speed.attention == {"F16": 5e9, "Q8_0": 5e9, "Q4_0": 5e9}
    assert cpu.speed.per_layer == pytest.approx(40e-6)
    assert cpu.speed.per_expert_layer == pytest.approx(150e-6)
    assert cpu.speed.per_row == pytest.approx(4.5e-6)
    assert cpu.speed.threads == 1
    assert machine.disk_read > 0


def test_a_model_larger_than_memory_is_measured_in_the_order_of_its_file(nano: ModelCard) -> None:
    figures: dict[str, list[float]] = {}
    small = host(cores=1, memory_available=ByteCount(nano.weights_size))  # of which a part stays free
    for there, one, further in ((small, 2.5e8, 7.5e8), (host(cores=1), 1e9, 3e9)):
        speed = measure_machine(there, engine(), nano, figures=figures).devices[0].speed
        assert (speed.one["Q8_0"], speed.further["Q8_0"]) == (one, further)


def test_experts_are_measured_only_where_a_model_has_some(nano: ModelCard, fake: type[FakeSpeedTest]) -> None:
    dense = replace(nano, tensors=tuple(each for each in nano.tensors if not each.is_expert_stack))
    assert measure_machine(host(cores=1), engine(), dense).devices[0].speed.further == {}
    assert not [each for each in fake.asked if each[0] == "experts"]


def test_any_model_is_measured_by_the_common_types(fake: type[FakeSpeedTest]) -> None:
    machine = measure_machine(host(cores=1), engine())
    assert matrices(fake) == [(name, 4096, 96 << 20) for name in (*COMMON_TYPES, "F16")]
    assert machine.disk_read == 0


def test_little_memory_is_not_filled_with_measuring(fake: type[FakeSpeedTest]) -> None:
    measure_machine(host(cores=1, memory_available=ByteCount(64 << 20)), engine())
    assert {size for _, _, size in matrices(fake)} == {8 << 20}


def test_what_was_measured_is_not_measured_again(nano: ModelCard, fake: type[FakeSpeedTest]) -> None:
    figures: dict[str, list[float]] = {}
    events: list[Event] = []
    first = measure_machine(host(), engine(), nano, figures=figures, listen=events.append)
    assert isinstance(events[-1], Progress)
    assert events[-1].finished
    assert len({(event.job, event.item) for event in events if isinstance(event, Progress)}) == 1
    fake.asked.clear()
    events.clear()
    assert measure_machine(host(), engine(), nano, figures=figures, listen=events.append) == first
    assert fake.asked == []
    assert events == []
    del figures[next(key for key in figures if key.startswith("F32"))]
    measure_machine(host(), engine(), nano, figures=figures)
    assert [each[1] for each in matrices(fake)] == [256]


@pytest.mark.parametrize("figure", [10**400, 1e308, 1e-320, -1.0, "1"])
def test_a_figure_that_no_machine_has_is_measured_again(
    nano: ModelCard, fake: type[FakeSpeedTest], figure: Any
) -> None:
    figures: dict[str, Any] = {}
    first = measure_machine(host(), engine(), nano, figures=figures)
    for key in [key for key in figures if not key.startswith(("measured from", "disk"))]:
        damaged = figures | {key: [figure] * len(figures[key])}
        assert measure_machine(host(), engine(), nano, figures=damaged) == first


def test_a_probe_has_a_name_of_its_own(nano: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1e9)
    figures: dict[str, list[float]] = {}
    first = measure_machine(host(), engine(), nano, figures=figures).probe
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert measure_machine(host(), engine(), figures=figures).probe == first
    assert first not in (
        measure_machine(host(), engine(), nano).probe,
        measure_machine(host(), engine(), nano, busy=1, figures={"measured from": [1e9]}).probe,
    )


def test_plausible_speeds_of_several_columns() -> None:
    assert are_plausible([10.0, 10.0, 10.0])
    assert are_plausible([10.0, 5.0, 1.25])
    assert not are_plausible([10.0, 3.0, 1.25])
    assert not are_plausible([10.0, 5.0, 0.5])
    assert not are_plausible([1.0, 5.0, 1.25])


def test_what_cannot_be_is_measured_twice(
    nano: ModelCard, fake: type[FakeSpeedTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"f16": [1e6, 4e9], "q8_0": [2e6, 1e6], "q4_0": [3e9]}
    monkeypatch.setattr(fake, "attention", lambda _, kv_type, *heads: [answers[kv_type].pop(0)])
    speed = measure_machine(host(cores=1), engine(), nano).devices[0].speed
    assert speed.attention == {"F16": 4e9, "Q8_0": 2e6, "Q4_0": 3e9}


def test_a_speed_that_contradicts_all_others_is_doubtful() -> None:
    assert contradicting({"Q8_0": 10e9, "Q4_K": 8e9, "Q6_K": 0.7e9}) == ["Q6_K"]
    assert contradicting({"Q8_0": 10e9, "Q4_K": 8e9, "F32": 150e9}) == ["F32"]
    assert contradicting({"Q8_0": 10e9, "Q4_K": 8e9, "Q2_K": 0.9e9}) == []
    assert contradicting({"Q8_0": 10e9, "Q4_K": 0.1e9}) == []  # which of two is wrong, nobody knows


def test_a_doubtful_speed_is_measured_again_once(
    nano: ModelCard, fake: type[FakeSpeedTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def matrix(test: FakeSpeedTest, name: str, width: int, size: int, columns: Sequence[int]) -> list[float]:
        fake.asked.append(("matrix", name, width, size, test.threads))
        disturbed = name == "Q6_K" and matrices(fake).count(("Q6_K", width, size)) == 1
        return [(1e7 if disturbed else 1e9) / column for column in columns]

    monkeypatch.setattr(fake, "matrix", matrix)
    figures: dict[str, list[float]] = {}
    speed = measure_machine(host(cores=1), engine(), figures=figures).devices[0].speed
    assert {*speed.one.values()} == {1e9}
    asked = len(fake.asked)
    again = measure_machine(host(cores=1), engine(), figures=figures).devices[0].speed
    assert (again.one, len(fake.asked)) == (speed.one, asked)


def test_the_fingerprint_tells_machines_and_moments_apart() -> None:
    one = fingerprint(host(), "0.3.36", 0)
    assert one == fingerprint(host(memory_available=ByteCount(GIB)), "0.3.36", 0)
    others = [
        fingerprint(host(cpu="Another"), "0.3.36", 0),
        fingerprint(host(cores=4), "0.3.36", 0),
        fingerprint(host(threads=8), "0.3.36", 0),
        fingerprint(host(features=("avx2", "fma")), "0.3.36", 0),
        fingerprint(host(), "0.3.37", 0),
        fingerprint(host(), "0.3.36", 3),
    ]
    assert len({one, *others}) == 7


def test_the_fewest_threads_of_those_that_are_fastest() -> None:
    assert fewest_of_the_fastest({1: 10.0, 2: 19.0, 4: 19.5}) == 2
    assert fewest_of_the_fastest({1: 10.0, 2: 10.4}) == 1
    assert fewest_of_the_fastest({1: 10.0, 2: 2.0, 4: 11.0}) == 4


def test_busy_cores_are_left_alone(nano: ModelCard, fake: type[FakeSpeedTest]) -> None:
    assert measure_machine(host(), engine(), nano).devices[0].speed.threads == 2
    assert {each[4] for each in fake.asked if each[0] == "matrix"} == {2, 4, 6, 7, 8}
    assert measure_machine(host(cores=2), engine(), nano, busy=1).devices[0].speed.threads == 1
    assert measure_machine(host(cores=2), engine(), nano, busy=9).devices[0].speed.threads == 1


def test_given_threads_are_measured_and_kept_beside_the_fastest(nano: ModelCard, fake: type[FakeSpeedTest]) -> None:
    figures: dict[str, list[float]] = {}
    assert measure_machine(host(), engine(), nano, threads=3, figures=figures).devices[0].speed.threads == 3
    assert not any(name.startswith("threads of") for name in figures)
    assert measure_machine(host(), engine(), nano, figures=figures).devices[0].speed.threads == 2
    asked = len(fake.asked)
    assert measure_machine(host(), engine(), nano, threads=3, figures=figures).devices[0].speed.threads == 3
    assert len(fake.asked) == asked


def test_hybrid_cores(nano: ModelCard, fake: type[FakeSpeedTest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak cores make the strong ones wait, so the count of the strong ones is tried as well."""
    monkeypatch.setattr(measure, "strong_cores", lambda root: 5)
    measure_machine(host(), engine(), nano)
    assert {each[4] for each in fake.asked if each[0] == "matrix"} == {2, 4, 5, 6, 7, 8}


def test_no_gpu(nano: ModelCard) -> None:
    for asked in (engine(), None):
        machine = measure_machine(host(), asked, nano)
        assert [device.name for device in machine.devices] == ["CPU"]
        assert machine.links == ()


def test_a_gpu_with_unknown_free_memory(nano: ModelCard) -> None:
    machine = measure_machine(host(), engine(EngineDevice("Vulkan0", "A card", "gpu", 0, 0)), nano)
    cpu, gpu = machine.devices
    assert (gpu.memory_free, gpu.memory_total) == (0, 0)
    assert "does not report" in gpu.description
    assert (cpu.memory_free, machine.memory_free) == (12 * GIB, 12 * GIB)


def test_a_gpu_that_shares_the_memory(nano: ModelCard) -> None:
    shared = EngineDevice("Vulkan0", "Radeon 780M", "integrated gpu", 8 * GIB, 7 * GIB)
    cpu, gpu = measure_machine(host(), engine(shared), nano).devices
    assert (cpu.memory_free, gpu.memory_free) == (5 * GIB, 7 * GIB)


def memory(monkeypatch: pytest.MonkeyPatch, total: int, available: int, limit: CgroupMemory | None) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=total, available=available))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=64 * GIB, free=64 * GIB))
    monkeypatch.setattr(runtime.machine.host, "cgroup_memory", lambda root: limit)


def cpu_of(machine: Machine) -> tuple[int, int]:
    return machine.devices[0].memory_free, machine.devices[0].memory_total


def test_a_control_group_below_the_memory(nano: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 32 * GIB, 30 * GIB, CgroupMemory(ByteCount(4 * GIB), ByteCount(GIB), "a limit"))
    assert cpu_of(measure_machine(probe(), engine(), nano)) == (3 * GIB, 4 * GIB)


def test_swap_is_no_memory(nano: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 2 * GIB, GIB // 8, None)
    assert cpu_of(measure_machine(probe(), engine(), nano)) == (GIB // 8, 2 * GIB)


def test_a_machine_without_any_free_memory(nano: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 2 * GIB, 0, None)
    assert cpu_of(measure_machine(probe(), engine(), nano)) == (0, 2 * GIB)


def test_zero_bandwidth(nano: ModelCard, fake: type[FakeSpeedTest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "slowest", 0.0)
    with pytest.raises(UsageError, match=r"^bandwidth: 0\.0 is not above zero"):
        measure_machine(host(), engine(), nano)


@pytest.mark.parametrize(
    "changed", [None, [], "fast", ["fast"], [0.0], [1e9, -1.0, 1e9], [1e9] * 4, [1e9, 1e9, float("inf")]]
)
def test_kept_figures_that_make_no_sense_are_measured_anew(nano: ModelCard, changed: Any) -> None:
    figures: dict[str, list[float]] = {}
    first = measure_machine(host(), engine(), nano, figures=figures)
    kept = dict(figures)
    for key in figures:
        if not key.startswith(("disk", "measured")):
            figures[key] = changed
    assert measure_machine(host(), engine(), nano, figures=figures) == first
    assert figures == kept


def test_a_kept_count_of_threads_that_the_machine_has_not(nano: ModelCard) -> None:
    figures: dict[str, list[float]] = {}
    measure_machine(host(), engine(), nano, figures=figures)
    figures[next(key for key in figures if key.startswith("threads"))] = [1e9]
    assert measure_machine(host(), engine(), nano, figures=figures).devices[0].speed.threads == 2
