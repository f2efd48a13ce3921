"""The checks of `dsr doctor`. `diagnose` is pure: it turns what is known of host, machine and engine into findings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsr.hub.select_files import estimated_memory
from dsr.loading.predict import past_correction
from dsr.models.catalog import CatalogEntry
from dsr.store import kept_moments
from dsr.store.predictions import PredictedRun, describe
from runtime.base.types import ByteCount
from runtime.machine.host import Host
from runtime.machine.machine import Machine, usable

if TYPE_CHECKING:
    from runtime.llama import EngineInfo

Status = Literal["ok", "note", "problem"]

RPC_BUILD = 'CMAKE_ARGS="-DGGML_RPC=ON" pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python'
_LITTLE_MEMORY = 2 << 30
_LITTLE_DISK = 10 << 30
_NAMED = 5  # models that would fit; the report gives only the number of the others


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was checked, the result, and what to do about a problem."""

    name: str
    status: Status
    value: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that dsr uses, and whether it can write to the model cache. `moments` has second moments that can be
    collected again, `moments_size` bytes."""

    hub_cache: Path
    hub_cache_writable: bool
    state: Path
    moments: Path
    moments_size: ByteCount


def find_places(hub_cache: Path, state: Path) -> Places:
    existing = next(folder for folder in (hub_cache, *hub_cache.parents) if os.path.exists(folder))
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    return Places(hub_cache, writable, state, kept_moments.folder(), kept_moments.size())


def describe_predictions(past: Sequence[PredictedRun], machine: Machine | None) -> str | None:
    """How far predictions were off, and how the next ones are corrected; None without runs."""
    predicted = describe(past)
    learnt = past_correction(machine, past).describe() if machine is not None else ""
    return f"{predicted}; {learnt}" if predicted and learnt else predicted


def diagnose(
    host: Host,
    engine: EngineInfo | str,
    places: Places,
    entries: Sequence[CatalogEntry],
    version: str,
    machine: Machine | None = None,
    predicted: str | None = None,
) -> tuple[Finding, ...]:
    """All findings in the order to show them.

    `engine` is a text if the engine cannot be loaded. `machine` is None if nothing could be measured. `predicted` says
    how far predictions were off.
    """
    return (
        Finding("dsr", "ok", version),
        Finding("platform", "ok", host.platform),
        *_cpu(host, engine),
        _memory(host),
        *_engine(engine),
        *(_measured(machine) if machine is not None else ()),
        _disk(host, places),
        _cache(places),
        Finding("dsr data", "ok", str(places.state)),
        *_moments(places),
        _fits(host, entries),
        *([Finding("predictions", "ok", predicted)] if predicted else []),
    )


def _cpu(host: Host, engine: EngineInfo | str) -> list[Finding]:
    cores = f"{host.cpu}, {host.cores} cores, {host.threads} threads"
    found = [Finding("cpu", "ok", cores)]
    x86 = "x86_64" in host.platform or "AMD64" in host.platform
    if x86 and not {"avx2", "fma", "f16c"} <= set(host.features):
        hint = "build the engine for this CPU: pip install --no-binary llama-cpp-python llama-cpp-python"
        value = f"{' '.join(host.features) or 'none known'}: slow without avx2, fma and f16c"
        found.append(Finding("cpu features", "problem", value, hint))
    else:
        found.append(Finding("cpu features", "ok", " ".join(host.features) or "none known"))
    if not isinstance(engine, str):
        found.append(Finding("kernels in use", "ok", kernels(engine.system_info)))
    return found


def kernels(system_info: str) -> str:
    """The CPU features that the engine uses: 'AVX2 = 1 | NEON = 0 | ...' becomes 'AVX2'."""
    used = []
    for part in system_info.replace(":", "|").split("|"):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if equals and value not in ("0", ""):
            used.append(name if value == "1" else f"{name} {value}")
    return " ".join(used) or "none named"


def _memory(host: Host) -> Finding:
    value = f"{host.memory_available} free of {host.memory_total}, limited by {host.memory_limited_by}"
    if host.memory_available < _LITTLE_MEMORY:
        return Finding("memory", "problem", value, "close other programs, or raise the memory limit of the container")
    return Finding("memory", "ok", value)


def _engine(engine: EngineInfo | str) -> list[Finding]:
    if isinstance(engine, str):
        return [Finding("engine", "problem", engine, "reinstall dsr; building its engine needs a C++ compiler")]
    found = [Finding("engine", "ok", f"llama-cpp-python {engine.version}")]
    gpus = [device for device in engine.devices if device.kind not in ("cpu", "accelerator")]
    for gpu in gpus:
        memory = f", {ByteCount(gpu.memory_free)} free of {ByteCount(gpu.memory_total)}" if gpu.memory_total else ""
        found.append(Finding("gpu", "ok", f"{gpu.name}: {gpu.description}{memory}"))
    if not gpus:
        hint = "if this machine has a GPU, install the engine build for it: see the README"
        found.append(Finding("gpu", "note", "the engine finds no GPU; the CPU computes everything", hint))
    if engine.rpc:
        found.append(Finding("rpc", "ok", "the engine can use other machines as nodes"))
    else:
        found.append(Finding("rpc", "note", "the engine was built without RPC, so dsr cannot use nodes", RPC_BUILD))
    return found


def _measured(machine: Machine) -> list[Finding]:
    cpu, *others = machine.devices
    threads = f"with {cpu.speed.threads} thread{'s' if cpu.speed.threads != 1 else ''}"
    found = [Finding("memory speed", "ok", f"{ByteCount(cpu.speed.bandwidth)}/s {threads}")]
    if machine.numa_nodes > 1:
        hint = "to spread a model over all of them: numactl --interleave=all dsr ..."
        found.append(
            Finding("numa", "note", f"{machine.numa_nodes} memory nodes: memory of another node is slower", hint)
        )
    for gpu in others:
        if not gpu.memory_free:
            hint = "write it into a machine file: dsr doctor --json > FILE, then dsr plan --machine FILE"
            found.append(
                Finding(
                    "gpu memory", "note", f"{gpu.name} does not report its free memory, so dsr does not use it", hint
                )
            )
        elif gpu.speed.assumed:
            value = f"{gpu.name}: {ByteCount(gpu.speed.bandwidth)}/s, assumed from its name"
            found.append(Finding("gpu speed", "ok", value))
    if machine.disk_read:
        found.append(Finding("disk speed", "ok", f"reads {ByteCount(machine.disk_read)}/s"))
    return found


SPEEDS_HEADER = ("weights", "1 token", "2 tokens", "8 tokens")


def speeds(machine: Machine) -> list[tuple[str, ...]]:
    """The bytes of weights per second that the CPU computes for each type, with 1, 2 and 8 tokens in a step."""
    speed = machine.devices[0].speed
    return [
        (name, *(f"{ByteCount(each[name])}/s" if name in each else "" for each in (speed.one, speed.two, speed.many)))
        for name in speed.one
    ]


def _disk(host: Host, places: Places) -> Finding:
    value = f"{host.disk_free} free at {places.hub_cache}"
    if host.disk_free < _LITTLE_DISK:
        return Finding("disk", "problem", value, "free some space, or set HF_HOME to a folder on a larger disk")
    return Finding("disk", "ok", value)


def _moments(places: Places) -> list[Finding]:
    if not places.moments_size:
        return []
    value = f"{places.moments_size} at {places.moments}; delete the folder to free them"
    return [Finding("second moments", "ok", value)]


def _cache(places: Places) -> Finding:
    if not places.hub_cache_writable:
        return Finding(
            "model cache",
            "problem",
            f"dsr cannot write to {places.hub_cache}",
            "set HF_HOME to a folder that you can write to",
        )
    made = "" if places.hub_cache.is_dir() else " (the first pull creates it)"
    return Finding("model cache", "ok", f"{places.hub_cache}{made}")


def _fits(host: Host, entries: Sequence[CatalogEntry]) -> Finding:
    room = usable(host.memory_available)
    fitting = sorted((e for e in entries if estimated_memory(e) <= room), key=lambda e: -e.parameters)
    if not fitting:
        return Finding("would fit", "note", "only nano, the model that comes with dsr", "to use it: dsr chat")
    names = ", ".join(entry.name for entry in fitting[:_NAMED])
    others = f" and {len(fitting) - _NAMED} smaller ones" if len(fitting) > _NAMED else ""
    return Finding("would fit", "ok", f"at Q4_K_M with a context of 8k: {names}{others}")
