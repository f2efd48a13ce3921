"""A model on this machine's own GPUs: what is decided, what the engine is told, and that nothing changes without."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import runtime.llama
from dsr.loading import machine as this_machine
from dsr.loading import nodes
from dsr.loading.context import context_for_machine
from dsr.loading.from_disk import fit
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.loading.place import apply_placement, describe_layers, find_placement, place_on_gpus, placement_request
from dsr.models import library
from dsr.plan import decide, planned_model
from runtime.base.errors import DoesNotFit, EngineFailed
from runtime.base.events import Event, Notice
from runtime.base.run import Run
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from runtime.llama import EngineDevice, EngineInfo, LlamaBackend, OpenOptions
from runtime.llama.native import native
from runtime.machine.machine import Device, Link, Machine, Speed, free_for, usable
from runtime.nodes.addresses import Address, NodeEntry
from runtime.nodes.client import Node, NodeDevice
from runtime.placement.memory import need
from tests import node_servers

ROOT = Path(__file__).resolve().parents[3]
MIB, GIB = 1 << 20, 1 << 30
OPTIONS = OpenOptions(context=512)


def cpu(memory: int = 8 * GIB) -> Device:
    return Device("CPU", "cpu", memory, memory, Speed(20e9, {}, {}))


def gpu(memory: int = 8 * GIB, name: str = "CUDA0", gigabytes: float = 400) -> Device:
    return Device(name, "gpu", memory, memory, Speed(gigabytes * 1e9, {}, {}))


def a_machine(*gpus: Device, home: Device | None = None) -> Machine:
    links = (Link(each.name, 1e-5, 1e10) for each in gpus)
    return Machine("here", (home or cpu(), *gpus), tuple(links), disk_read=1e9)


@pytest.fixture(scope="session")
def card(nano_path: Path) -> ModelCard:
    return read_card(nano_path)


def on(card: ModelCard, machine: Machine, context: int = 512) -> OpenOptions:
    """The options for a placement on the machine."""
    return apply_placement(OPTIONS, card, machine, find_placement(card, machine, placement_request(context)))


# What is decided


def test_layers_and_experts_without_room_on_the_gpu_stay_with_the_cpu(card: ModelCard) -> None:
    assert on(card, a_machine(gpu())) == replace(OPTIONS, gpus=("CUDA0",), layers=(5,))
    found = {size: on(card, a_machine(gpu(free_for(size * MIB)))) for size in (8, 12, 18, 22, 26)}
    assert {size: (each.layers, each.kept) for size, each in found.items()} == {
        8: ((), ()),
        12: ((4,), ("exps",)),
        18: ((5,), (r"blk\.([12])\.ffn_.*_exps",)),
        22: ((5,), (r"blk\.(1)\.ffn_.*_exps",)),
        26: ((5,), ()),
    }
    assert describe_layers(found[18], card) == "5 of 5 layers at CUDA0, routed experts without room there with the CPU"


def test_a_gpu_that_holds_nothing_is_not_touched(card: ModelCard) -> None:
    slow = gpu(name="CUDA1", gigabytes=1)
    assert on(card, a_machine(gpu(), slow)) == replace(OPTIONS, gpus=("CUDA0",), layers=(5,))
    assert on(card, a_machine(slow)) == replace(OPTIONS, gpus=())
    assert describe_layers(on(card, a_machine(slow)), card) == "all layers stay with the CPU: that is faster"


def test_without_a_gpu_the_options_are_what_they_were(card: ModelCard) -> None:
    assert on(card, a_machine()) == OPTIONS


def test_nodes_and_gpus_are_dealt_out_together_nodes_first(card: ModelCard) -> None:
    node = Node(Address("10.0.0.1", 1), (7, 0, 0), (NodeDevice(8 * GIB, 8 * GIB),), 1e-6, 1e10)
    machine = nodes.machine_with_nodes(a_machine(gpu(free_for(26 * MIB)), home=cpu(free_for(90 * MIB))), [node], {})
    assert [(each.name, each.node) for each in machine.devices] == [("CPU", ""), ("CUDA0", ""), ("RPC0", "10.0.0.1:1")]
    both = nodes.split_over_nodes(
        card, replace(OPTIONS, context=60_000), a_machine(gpu(GIB), home=cpu(300 * MIB)), 1, [node]
    )
    assert both.gpus is not None
    assert len(both.layers) == len(both.nodes) + len(both.gpus)


def test_layers_dealt_out_by_hand_leave_the_gpu_alone(card: ModelCard) -> None:
    node = Node(Address("10.0.0.1", 1), (7, 0, 0), (NodeDevice(GIB, GIB),), 1e-4, 1e9)
    options = nodes.split_over_nodes(card, OPTIONS, a_machine(gpu()), 1, [node], [NodeEntry(node.address, 2)])
    assert (options.nodes, options.gpus, options.layers) == (("10.0.0.1:1",), (), (2,))


# What plan says is what chat does


def test_a_tenth_stays_free_on_a_gpu_at_most_a_gibibyte() -> None:
    assert (usable(10 * GIB), usable(4 * GIB, "gpu"), usable(24 * GIB, "gpu")) == (
        9 * GIB,
        int(3.6 * GIB),
        23 * GIB,
    )
    assert usable(free_for(123_456_789)) == 123_456_789
    assert [each.memory_free for each in a_machine(gpu(24 * GIB)).usable().devices] == [usable(8 * GIB), 23 * GIB]


@pytest.mark.parametrize("size", [40, 70, 90, 200, 8000])
@pytest.mark.parametrize("gpus", [(), (gpu(30 * MIB),)], ids=["alone", "with a GPU"])
def test_plan_and_chat_choose_the_same_context(card: ModelCard, size: int, gpus: tuple[Device, ...]) -> None:
    machine = a_machine(*gpus, home=cpu(size * MIB))
    model = planned_model.PlannedModel("nano", "nano", "Q8_0", card)
    try:
        planned = decide.decide(model, machine, LoadOptions()).placement.request.context
    except DoesNotFit:
        planned = 0
    request = LoadOptions()
    try:
        if gpus:
            options = replace(OPTIONS, context=context_for_machine(card, machine, request))
            chosen = place_on_gpus(card, machine, options, request).context
        else:
            chosen = fit(card, usable(size * MIB), request).context
    except DoesNotFit:
        chosen = 0
    assert chosen == planned


def test_what_fits_nowhere_says_what_is_missing(card: ModelCard) -> None:
    with pytest.raises(DoesNotFit) as caught:
        find_placement(card, a_machine(gpu(9 * MIB), home=cpu(40 * MIB)), placement_request(2048), shorten=True)
    assert caught.value.missing > 0


# What the engine is told


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The parameters of the next model, which is then not loaded."""
    asked: list[Any] = []

    def not_loaded(path: bytes, params: Any) -> None:
        split = list(params.tensor_split[:4]) if params.tensor_split else None
        patterns: list[str] = []
        if params.tensor_buft_overrides:
            pairs = ctypes.cast(params.tensor_buft_overrides, ctypes.POINTER(ctypes.c_void_p))
            while pattern := pairs[2 * len(patterns)]:
                patterns.append(ctypes.string_at(pattern).decode())
        chosen: list[int] = []
        if params.devices:
            devices = ctypes.cast(params.devices, ctypes.POINTER(ctypes.c_void_p))
            while device := devices[len(chosen)]:
                chosen.append(device)
        asked.append((chosen if params.devices else None, params.n_gpu_layers, split, patterns))

    monkeypatch.setattr(native, "llama_model_load_from_file", not_loaded)
    yield asked


def open_with(path: Path, options: OpenOptions) -> None:
    with pytest.raises(EngineFailed), LlamaBackend(path, options):
        pass


def test_devices_layers_and_kept_experts_reach_the_engine(
    nano_path: Path, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"CUDA0": 4711, "CUDA1": 4712}
    monkeypatch.setattr("runtime.llama.devices._local_gpu", numbers.__getitem__)
    open_with(nano_path, replace(OPTIONS, gpus=("CUDA0", "CUDA1"), layers=(3, 2), kept=(r"blk\.(1)\.ffn_.*_exps",)))
    open_with(nano_path, replace(OPTIONS, gpus=()))
    open_with(nano_path, OPTIONS)
    assert told == [
        ([4711, 4712], 5, [3, 2, 0, 0], [r"blk\.(1)\.ffn_.*_exps"]),
        ([], 0, [0, 0, 0, 0], []),
        (None, -1, None, []),  # the engine's own choice
    ]


def test_a_gpu_that_is_gone_is_named(nano_path: Path) -> None:
    with pytest.raises(EngineFailed, match="the engine no longer sees CUDA7"):
        LlamaBackend(nano_path, replace(OPTIONS, gpus=("CUDA7",), layers=(1,)))


def test_more_devices_than_the_engine_takes_are_refused(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.llama.devices._local_gpu", lambda name: 1)
    many = tuple(f"CUDA{n}" for n in range(17))
    with pytest.raises(EngineFailed, match="the engine uses at most 16 devices, not 17"):
        LlamaBackend(nano_path, replace(OPTIONS, gpus=many, layers=(1,) * 17))


# Opening


class Opened(Exception):
    pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[OpenOptions]:
    """With what a model would be opened."""
    found: list[OpenOptions] = []

    def instead(path: Path, options: OpenOptions, *_: Any) -> None:
        found.append(options)
        raise Opened

    monkeypatch.setattr(runtime.llama, "LlamaBackend", instead)
    return found


def try_to_load(options: LoadOptions) -> list[str]:
    """What a person is told."""
    heard: list[Event] = []
    with pytest.raises(Opened), load(library.find("nano"), options, Run(listen=heard.append, threads=1)):
        pass
    return [each.text for each in heard if isinstance(each, Notice)]


def sees(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(this_machine, "has_gpus", lambda: len(machine.devices) > 1)
    monkeypatch.setattr(this_machine, "measured_machine", lambda *_, **__: machine)


def test_chat_places_a_model_on_the_gpus_that_the_engine_sees(
    asked: list[OpenOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    sees(monkeypatch, a_machine(gpu()))
    assert try_to_load(LoadOptions()) == ["5 of 5 layers at CUDA0"]
    assert [(each.context, each.gpus, each.layers, each.kept) for each in asked] == [(2048, ("CUDA0",), (5,), ())]


def test_on_a_machine_without_a_gpu_the_engine_is_told_nothing_of_devices(
    asked: list[OpenOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(this_machine, "measured_machine", lambda *_, **__: pytest.fail("nothing is to be measured"))
    assert try_to_load(LoadOptions()) == []
    assert [(each.nodes, each.gpus, each.layers, each.kept) for each in asked] == [((), None, (), ())]


def test_an_asked_context_that_no_split_has_room_for_goes_over_the_disk(
    asked: list[OpenOptions], card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees(monkeypatch, a_machine(gpu(1 * MIB), home=cpu(free_for(need(card, 512).total - 5 * MIB))))
    try_to_load(LoadOptions(context=512))
    assert [(each.context, each.gpus) for each in asked] == [(512, ())]


def test_the_gpus_of_nodes_are_not_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    def facts(*names: str) -> EngineInfo:
        devices = (EngineDevice(name, "a card", "cpu" if name == "CPU" else "gpu", GIB, GIB) for name in names)
        return EngineInfo("1", tuple(devices), True, True, "")

    for names, found in ((("CPU",), False), (("CPU", "RPC0"), False), (("CPU", "CUDA0"), True)):
        monkeypatch.setattr(this_machine, "_engine", lambda names=names: facts(*names))
        assert this_machine.has_gpus() is found


_AS_IF_A_GPU = """
import sys
from pathlib import Path
import ctypes
from runtime.llama.native import library
registry, rpc = library("ggml"), library("ggml-rpc")
rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
rpc.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
registry.ggml_backend_register.argtypes = [ctypes.c_void_p]
registry.ggml_backend_register(rpc.ggml_backend_rpc_add_server(sys.argv[1].encode()))

from dsr.models import library as models
from dsr.loading import machine
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from runtime.base.run import Run
from runtime.engine.engine import Engine
from runtime.llama.memory_breakdown import breakdown_of
from runtime.engine.template import Prompt
from runtime.engine.sequence import Request
from runtime.machine.machine import Device, Link, Machine, Speed
from runtime.base.types import SamplingParams

free, memory = int(sys.argv[2]), 8 << 30
devices = (
    Device("CPU", "cpu", memory, memory, Speed(20e9, {}, {})), Device("RPC0", "gpu", free, free, Speed(4e11, {}, {}))
)
machine.has_gpus = lambda: True
machine.measured_machine = lambda *_, **__: Machine("here", devices, (Link("RPC0", 1e-5, 1e10),))
with load(models.find("nano"), LoadOptions(context=512), Run(threads=1)) as model:
    prompt = tuple(model.backend.tokenize("What is 347 + 586?"))
    [drawn] = Engine(model.backend).generate([Request(Prompt(prompt), SamplingParams(temperature=0, max_tokens=40))])
    uses = breakdown_of(model.backend) or ()
    there = sum(use.weights for use in uses if use.buffer.startswith("RPC0"))
    print(*model.backend._options.layers, ";", *model.backend._options.kept, ";", there, ";", *drawn.tokens)
"""


def _drawn(address: Address, memory: int) -> list[str]:
    command = [sys.executable, "-c", _AS_IF_A_GPU, str(address), str(memory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [part.strip() for part in done.stdout.split(";")]


def test_a_device_of_the_engine_computes_what_was_placed_on_it() -> None:
    """A worker on loopback stands in for a GPU: to the engine both are devices with memory of their own."""
    with node_servers.worker() as (_, address):
        whole, part = _drawn(address, 4 * GIB), _drawn(address, 18 * MIB)
        alone = _drawn(address, 1 * MIB)
    assert (whole[:2], part[:2], alone[:2]) == (["5", ""], ["5", r"blk\.([12])\.ffn_.*_exps"], ["", ""])
    assert whole[3] == part[3] == alone[3] and len(alone[3].split()) > 10
    if int(whole[2]):  # where the engine tells what is where
        assert int(part[2]) == int(whole[2]) - 2 * 3_342_336  # the experts of two layers
        assert alone[2] == "0"
