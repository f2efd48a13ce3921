"""What the doctor says about machines that are well and machines that are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dsr.commands.doctor import doctor
from dsr.doctor.doctor import Finding, Places, describe_predictions, diagnose, find_places, kernels, speeds
from dsr.hub.select_files import estimated_memory
from dsr.models.catalog import load
from dsr.store.predictions import Figures, PredictedRun
from runtime.base.errors import EngineFailed
from runtime.base.types import ByteCount
from runtime.machine.host import Host
from runtime.machine.machine import Device, Machine, Speed, from_json

GIB = 1 << 30
GPU = SimpleNamespace(name="CUDA0", description="A card", kind="gpu", memory_total=8 * GIB, memory_free=7 * GIB)
PLACES = Places(Path("/models"), True, Path("/state"), Path("/cache/moments"), ByteCount(0))


def host(**changes: Any) -> Host:
    facts: dict[str, Any] = {
        "platform": "Linux x86_64, Python 3.12.0",
        "cpu": "A processor",
        "cores": 4,
        "threads": 8,
        "features": ("avx2", "f16c", "fma"),
        "memory_total": ByteCount(16 * GIB),
        "memory_available": ByteCount(12 * GIB),
        "memory_limited_by": "the machine",
        "disk_free": ByteCount(100 * GIB),
    }
    return Host(**facts | changes)


def engine(**changes: Any) -> Any:
    facts = {
        "version": "0.3.36",
        "devices": (),
        "rpc": True,
        "gpu_offload": False,
        "system_info": "CPU : AVX2 = 1 | NEON = 0 | SVE_CNT = 32 |",
    }
    return SimpleNamespace(**facts | changes)


def findings(host: Host, engine: Any, places: Places = PLACES) -> dict[str, Finding]:
    return {each.name: each for each in diagnose(host, engine, places, load().entries, "1")}


def test_kept_moments_are_named_where_there_are_any() -> None:
    assert "second moments" not in findings(host(), engine())
    kept = findings(host(), engine(), replace(PLACES, moments_size=ByteCount(3 * GIB)))["second moments"]
    assert kept.value == "3.00 GiB at /cache/moments; delete the folder to free them"


def test_a_healthy_machine() -> None:
    found = findings(host(), engine(devices=(GPU,)))
    assert {each.status for each in found.values()} == {"ok"}
    assert found["gpu"].value == "CUDA0: A card, 7.00 GiB free of 8.00 GiB"
    assert found["memory"].value == "12.0 GiB free of 16.0 GiB, limited by the machine"
    assert found["kernels in use"].value == "AVX2 SVE_CNT 32"
    assert found["would fit"].value == (
        "at Q4_K_M with a context of 8k: apriel-1.5:15b, qwen3:14b, cogito:14b, phi-4:14b, ministral-3:14b "
        "and 52 smaller ones"
    )


def test_every_problem_has_a_hint() -> None:
    ill = host(features=("avx",), memory_available=ByteCount(GIB // 4), disk_free=ByteCount(GIB))
    found = findings(ill, "cannot be loaded: no such file", replace(PLACES, hub_cache_writable=False))
    problems = {name for name, each in found.items() if each.status == "problem"}
    assert problems == {"cpu features", "memory", "engine", "disk", "model cache"}
    assert all(each.hint for each in found.values() if each.status != "ok")
    assert found["would fit"].value == "only nano, the model that comes with dsr"


def test_no_gpu_and_no_rpc_are_notes() -> None:
    found = findings(host(), engine(rpc=False))
    assert (found["gpu"].status, found["rpc"].status) == ("note", "note")
    assert "GGML_RPC=ON" in (found["rpc"].hint or "")


def test_other_processors_need_no_avx() -> None:
    arm = host(platform="Darwin arm64, Python 3.12.0", features=("neon",))
    assert findings(arm, engine())["cpu features"].status == "ok"


def test_kernels() -> None:
    assert kernels("") == "none named"
    assert kernels("CPU : SSE3 = 1 | AVX = 0 | REPACK = 1 | ") == "SSE3 REPACK"


def test_a_model_of_7_billion_needs_5_gib() -> None:
    entry = load().lookup("deepseek-r1:7b")
    assert entry is not None
    assert 4.4 * GIB < estimated_memory(entry) < 5.5 * GIB


def test_a_cache_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert find_places(tmp_path / "hub" / "x", tmp_path).hub_cache_writable
    file = tmp_path / "file"
    file.write_text("")
    assert not find_places(file / "hub", tmp_path).hub_cache_writable


SPEED = Speed(
    10 * GIB, {"F16": 8 * GIB, "Q4_K": 6 * GIB}, {"F16": 2 * GIB, "Q4_K": GIB}, two={"F16": 4 * GIB}, threads=4
)


def machine(*gpus: Device, **changes: Any) -> Machine:
    return Machine("A processor", (Device("CPU", "cpu", 12 * GIB, 16 * GIB, SPEED), *gpus), **changes)


def measured(machine: Machine) -> dict[str, Finding]:
    found = diagnose(host(), engine(devices=(GPU,)), PLACES, load().entries, "1", machine)
    return {each.name: each for each in found}


def test_what_was_measured() -> None:
    found = measured(machine(disk_read=2.0 * GIB))
    assert found["memory speed"].value == "10.0 GiB/s with 4 threads"
    assert found["disk speed"].value == "reads 2.00 GiB/s"
    assert {"numa", "gpu speed", "gpu memory", "predictions"}.isdisjoint(found)
    assert "disk speed" not in measured(machine())


def test_numa_is_a_note() -> None:
    numa = measured(machine(numa_nodes=2))["numa"]
    assert (numa.status, numa.value) == ("note", "2 memory nodes: memory of another node is slower")


def test_a_gpu_that_does_not_say_how_much_is_free() -> None:
    gpu = measured(machine(Device("Vulkan0", "gpu", 0, 0, SPEED)))["gpu memory"]
    assert (gpu.status, gpu.value) == ("note", "Vulkan0 does not report its free memory, so dsr does not use it")


def test_assumed_speeds_say_so() -> None:
    gpu = Device("CUDA0", "gpu", GIB, GIB, Speed(100 * GIB, {}, {}, assumed=True))
    assert measured(machine(gpu))["gpu speed"].value == "CUDA0: 100.0 GiB/s, assumed from its name"


def test_the_table_of_speeds() -> None:
    assert speeds(machine()) == [
        ("F16", "8.00 GiB/s", "4.00 GiB/s", "2.00 GiB/s"),
        ("Q4_K", "6.00 GiB/s", "", "1.00 GiB/s"),
    ]


def test_how_far_predictions_were_off() -> None:
    found = diagnose(host(), engine(), PLACES, load().entries, "1", None, "speed off by 3% (1 run)")
    assert found[-1] == Finding("predictions", "ok", "speed off by 3% (1 run)")


def test_what_runs_taught_is_told() -> None:
    assert describe_predictions([], machine()) is None
    figures = Figures(200.0, 98), Figures(100.0, 100)
    past = [PredictedRun(0.0, "nano", 2048, 1, "f16", *figures, 200.0, 4, "here")]
    off = "speed off by 100%, memory by 2% (1 run)"
    assert describe_predictions(past, None) == describe_predictions(past, machine()) == off
    assert describe_predictions(past, machine(probe="here")) == (
        f"{off}; 1 run here reached 0.50 of the uncorrected speed; corrected by 0.79"
    )


def asked(monkeypatch: pytest.MonkeyPatch, *options: str, here: Any) -> tuple[Any, Any]:
    monkeypatch.setattr("dsr.loading.machine.measure_this_machine", here)
    app = typer.Typer()
    app.command()(doctor)
    result = CliRunner().invoke(app, [*options, "--json"])
    return result, json.loads(result.stdout)


def test_doctor_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result, predicted = asked(monkeypatch, here=lambda listen, again: machine(disk_read=float(again)))
    assert predicted["schema"] == "dsr.doctor/1"
    assert predicted["healthy"] == (result.exit_code == 0)
    assert {"cpu", "memory", "engine", "disk", "would fit"} <= {each["name"] for each in predicted["findings"]}
    assert predicted["machine"]["cores"] >= 1
    assert from_json(result.stdout, "box.json") == machine()


def test_doctor_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = asked(monkeypatch, "--probe", here=lambda listen, again: machine(disk_read=float(again)))
    assert from_json(result.stdout, "box.json") == machine(disk_read=1.0)


def test_doctor_without_an_engine_that_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(listen: Any, again: bool) -> Machine:
        raise EngineFailed("not enough memory to measure the speed of this machine")

    _, predicted = asked(monkeypatch, here=failing)
    assert predicted["site"] is None
