"""Where every layer goes: literal cases, and random ones against llama.cpp's own split."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from runtime.base.errors import DoesNotFit, Incompatible, UsageError
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.header import TensorInfo
from runtime.gguf.values import ArrayValue
from runtime.machine.machine import Device, Link, Machine, Speed
from runtime.placement.latency import Share, StepTime, held_bytes
from runtime.placement.memory import need, part_sizes
from runtime.placement.offload import offload
from runtime.placement.place import Placement, PlacementRequest, default_split, place
from runtime.placement.split import layer_order

MIB, GIB = 1 << 20, 1 << 30
WANTED = PlacementRequest(1024, filled=0)


def card(layers: int = 8, dense: int = 32, routed: int = 0, *, tied: bool = False, **changes: Any) -> ModelCard:
    """Layers of `dense` MiB each and of `routed` MiB of experts, two of eight of which are met; 16 MiB of head."""
    weights = [("token_embd.weight", 16)] + ([] if tied else [("output.weight", 16)])
    for n in range(layers):
        weights.append((f"blk.{n}.attn_q.weight", dense))
        weights += [(f"blk.{n}.ffn_up_exps.weight", routed)] * bool(routed)
    tensors = tuple(TensorInfo(name, (size << 19,), "F16", 0, ByteCount(size * MIB)) for name, size in weights)
    facts: dict[str, Any] = {
        "files": (Path("model.gguf"),),
        "size": ByteCount(0),
        "architecture": "qwen2",
        "name": "Model",
        "metadata": {},
        "tensors": tensors,
        "header_digest": "",
        "layers": layers,
        "nextn_layers": 0,
        "context_length": 32768,
        "embedding_length": 256,
        "heads": 4,
        "kv_heads_per_layer": (4,) * layers,
        "key_length": 64,
        "value_length": 64,
        "rope_dimensions": 64,
        "q_lora_rank": 0,
        "kv_lora_rank": 0,
        "key_length_mla": 0,
        "value_length_mla": 0,
        "experts": 8 if routed else 0,
        "experts_used": 2 if routed else 0,
        "vocab_size": 1024,
        "bos_token": None,
        "eos_token": None,
        "template": None,
    }
    return ModelCard(**facts | changes)


def speed(gigabytes: float, **fields: Any) -> Speed:
    return Speed(gigabytes * 1e9, {}, {}, **fields)


def cpu(memory: int, gigabytes: float = 20, node: str = "") -> Device:
    return Device("CPU", "cpu", memory, memory, speed(gigabytes), node)


def gpu(memory: int, gigabytes: float = 400, name: str = "CUDA0") -> Device:
    return Device(name, "gpu", memory, memory, speed(gigabytes))


def machine(*devices: Device, disk: float = 0.0, round_trip: float = 1e-4, bandwidth: float = 1e9) -> Machine:
    ways = dict.fromkeys(device.node or device.name for device in devices[1:])
    return Machine("here", devices, tuple(Link(to, round_trip, bandwidth) for to in ways), disk)


def held(placement: Placement) -> list[tuple[str, list[int], list[int], bool]]:
    return [
        (each.device.node or each.device.name, list(each.layers), list(each.experts), each.head)
        for each in placement.assignments
    ]


# What is decided


def test_without_a_gpu_the_cpu_holds_everything() -> None:
    found = place(card(4), machine(cpu(GIB)), WANTED)
    assert held(found) == [("CPU", [0, 1, 2, 3], [], True)]
    # 4 layers of 32 MiB and a head of 16 MiB at 20 GB/s.
    assert found.seconds_per_step == pytest.approx(144 * MIB / 20e9)
    assert found.tokens_per_second == pytest.approx(20e9 / (144 * MIB))
    assert found.bottleneck == "memory bandwidth"
    assert found.flags == ("-c 1024", "-ngl 0")
    assert found.alternatives == ()


def test_all_goes_to_a_gpu_with_room() -> None:
    found = place(card(4), machine(cpu(GIB), gpu(GIB)), WANTED)
    assert held(found) == [("CPU", [], [], False), ("CUDA0", [0, 1, 2, 3], [], True)]
    assert found.flags == ("-c 1024", "-ngl 5")
    assert "no layer is on this machine's CPU: the other devices are faster and have room" in found.reasons


def test_a_gpu_takes_as_many_layers_as_it_has_room_for() -> None:
    model = card(8)
    buffer = part_sizes(model, 1024).attention_buffer
    layer = 32 * MIB + 1 * MIB  # and its cache: 1024 tokens x 4 heads x 128 values x 2 bytes
    room = buffer + 3 * layer
    found = place(model, machine(cpu(GIB), gpu(room + 1024)), WANTED)
    assert held(found) == [("CPU", [0, 1, 2, 3, 4], [], True), ("CUDA0", [5, 6, 7], [], False)]
    assert found.flags == ("-c 1024", "-ngl 4", '-ot "^output=CPU"')
    assert len(place(model, machine(cpu(GIB), gpu(room - 1024)), WANTED).assignments[1].layers) == 2


def test_experts_stay_with_the_cpu_and_what_every_token_meets_goes_to_the_gpu() -> None:
    model = card(8, dense=32, routed=200)
    found = place(model, machine(cpu(4 * GIB), gpu(GIB)), WANTED)
    assert held(found)[0] == ("CPU", [], [0, 1, 2, 3, 4], False)
    assert held(found)[1] == ("CUDA0", [0, 1, 2, 3, 4, 5, 6, 7], [5, 6, 7], True)
    assert '-ot "blk\\.([0-4])\\.ffn_.*_exps=CPU"' in found.flags
    assert any(
        "the 5 layers of routed experts (layers 0-4) stay on this machine's CPU: they take 1000.0 MiB, and CUDA0 has "
        "1.00 GiB; the attention and dense parts (256.0 MiB) go to the GPU first, because every token uses them"
        in reason
        for reason in found.reasons
    )
    all_away = place(model, machine(cpu(4 * GIB), gpu(400 * MIB)), WANTED)
    assert "-ot exps=CPU" in all_away.flags


def test_a_node_is_used_when_it_is_needed_and_left_out_when_it_slows_down() -> None:
    model = card(8)
    node = cpu(GIB, 10, "10.0.0.2:50052")
    alone = place(model, machine(cpu(GIB), node), WANTED)
    assert held(alone) == [("CPU", list(range(8)), [], True)]
    unused = "CPU of 10.0.0.2:50052 is unused, because a step is shorter without it"
    assert any(each.startswith(unused) for each in alone.reasons)
    small = place(model, machine(cpu(250 * MIB), node), WANTED)
    assert [each.device.node for each in small.assignments] == ["", "10.0.0.2:50052"]
    assert "--rpc 10.0.0.2:50052" in small.flags
    far = place(model, machine(cpu(250 * MIB), node, round_trip=0.5), WANTED)
    assert far.bottleneck == "link to 10.0.0.2:50052"


def test_samples_share_what_every_token_meets_and_each_has_experts_of_its_own() -> None:
    model, here = card(4, routed=64), machine(cpu(GIB))
    one, two = (place(model, here, PlacementRequest(1024, samples, filled=0)) for samples in (1, 2))
    assert one.seconds_per_step == pytest.approx((144 + 4 * 64 * 2 / 8) * MIB / 20e9)
    assert two.seconds_per_step == pytest.approx((144 + 4 * 64 * 2 * 2 / 8) * MIB / 20e9)
    assert two.tokens_per_second == pytest.approx(2 / two.seconds_per_step)
    assert "-np 2" in two.flags


def test_attention_grows_with_what_is_in_the_cache() -> None:
    here = Machine("here", (Device("CPU", "cpu", GIB, GIB, speed(20, attention={"F16": 1e9})),))
    requests = (PlacementRequest(1024, filled=0), PlacementRequest(1024, filled=1000), PlacementRequest(1024))
    empty, full, half = (place(card(4), here, each).seconds_per_step for each in requests)
    assert full - empty == pytest.approx(4 * 1000 * 4 * 128 / 1e9)
    assert half - empty == pytest.approx((full - empty) * 0.512)


def test_a_token_reads_a_row_of_a_table_and_all_of_its_recurrent_state() -> None:
    plain, alone = card(), machine(cpu(8 * GIB))
    table = TensorInfo("per_layer_token_embd.weight", (MIB,), "F16", 0, ByteCount(2 * MIB))
    with_table = card(tensors=(*plain.tensors, table))
    assert place(with_table, alone, WANTED).seconds_per_step == place(plain, alone, WANTED).seconds_per_step
    state = TensorInfo("blk.3.shortconv.conv.weight", (3, 256), "F16", 0, ByteCount(0))
    recurrent = card(tensors=(*plain.tensors, state), metadata={"qwen2.shortconv.l_cache": 3})
    further = place(recurrent, alone, WANTED).seconds_per_step - place(plain, alone, WANTED).seconds_per_step
    assert further == pytest.approx(2 * 256 * 2 * 4 / 20e9)  # two tokens of 256 floats, read and written


def test_a_recurrent_layer_does_not_attend_and_windows_attend_to_narrow_heads() -> None:
    alone = machine(cpu(8 * GIB))

    def attention(**changes: Any) -> float:
        return place(card(**changes), alone, PlacementRequest(32768, filled=10000)).attention_seconds

    tensors = (*card().tensors, TensorInfo("blk.0.shortconv.conv.weight", (3, 256), "F16", 0, ByteCount(0)))
    assert attention(tensors=tensors, metadata={"qwen2.shortconv.l_cache": 3}) == pytest.approx(attention() * 7 / 8)
    said = {
        "gemma4.attention.sliding_window": 512,
        "gemma4.attention.sliding_window_pattern": ArrayValue("bool", 8, bytes(8)),
    }
    wide = attention(architecture="gemma4", metadata=said)
    narrow = {**said, "gemma4.attention.sliding_window_pattern": ArrayValue("bool", 8, bytes([1] * 8))}
    narrow |= {"gemma4.attention.key_length_swa": 32, "gemma4.attention.value_length_swa": 32}
    assert attention(architecture="gemma4", metadata=narrow) == pytest.approx(wide / 2)
    assert attention(heads_per_layer=(4,) * 4 + (8,) * 4) == pytest.approx(attention() * 1.5)


def test_experts_that_differ_by_layer() -> None:
    same = card(routed=64)
    fewer = card(routed=64, experts_used_per_layer=(1,) * 4 + (2,) * 4)
    whole = sum(each.parameters for each in same.tensors if each.is_expert_stack)
    assert same.active_parameters == same.parameters - whole * 6 // 8
    assert fewer.active_parameters == fewer.parameters - whole * 13 // 16
    alone = machine(cpu(8 * GIB))
    saved = place(same, alone, WANTED).seconds_per_step - place(fewer, alone, WANTED).seconds_per_step
    assert saved == pytest.approx(4 * 64 * MIB / 8 / 20e9)


def test_a_longer_prompt_takes_longer_and_loading_reads_the_file_once() -> None:
    found = place(card(4), machine(cpu(GIB), disk=1e9), WANTED)
    times = [found.first_token_seconds(tokens) for tokens in (1, 5, 100, 512, 513, 5000)]
    assert times == sorted(times) and times[0] > 0
    assert found.load_seconds == pytest.approx(160 * MIB / 1e9)


# What does not fit


def test_what_is_missing_is_said_with_the_nearest_things_that_fit() -> None:
    model, wanted = card(8), PlacementRequest(16384)
    whole = need(model, 16384).total
    with pytest.raises(DoesNotFit, match="a context of 16384 tokens needs") as error:
        place(model, machine(cpu(whole - 20 * MIB)), wanted)
    assert error.value.missing == 20 * MIB
    assert error.value.hint is not None
    fitting = error.value.hint.split("; ")
    assert fitting[0].startswith("a context of ") and fitting[0].endswith(" tokens fits")
    shorter = int(fitting[0].split()[3])
    assert place(model, machine(cpu(whole - 20 * MIB)), PlacementRequest(shorter)).assignments
    with pytest.raises(DoesNotFit):
        place(model, machine(cpu(whole - 20 * MIB)), PlacementRequest(shorter + 256))
    assert fitting[1] == "a KV cache of type q8_0 fits"
    assert place(model, machine(cpu(whole - 20 * MIB)), PlacementRequest(16384, kv_type="q8_0")).assignments
    assert fitting[2] == "a quantization with 14.8 bits per weight fits (this file has 16.0)"
    assert fitting[3].startswith("another node with ")


def test_a_node_as_large_as_the_hint_says_would_do() -> None:
    model, here = card(8, routed=300), machine(cpu(GIB))
    with pytest.raises(DoesNotFit) as error:
        place(model, here, WANTED)
    size = (error.value.hint or "").split("another node with ")[1].split(" of free")[0]
    node = cpu(ByteCount.parse(size) + 10 * MIB, node="10.0.0.2:50052")
    assert len(place(model, machine(here.devices[0], node), WANTED).assignments) == 2


def test_as_many_experts_as_the_hint_says_fit_and_fewer_than_are_active_are_no_help() -> None:
    model = card(8, routed=300)
    whole = need(model, 1024)
    each = 8 * 300 * MIB // model.experts
    with pytest.raises(DoesNotFit) as error:
        place(model, machine(cpu(whole.total - each - MIB)), WANTED)
    kept = model.experts - 2
    assert f"{kept} of the {model.experts} experts of each layer fit: dsr experts prune" in (error.value.hint or "")
    with pytest.raises(DoesNotFit) as error:
        place(model, machine(cpu(whole.total - each * model.experts)), WANTED)
    assert "dsr experts prune" not in (error.value.hint or "")


def test_a_sketch_of_a_model_names_a_share_of_its_experts_not_a_count() -> None:
    sketch = card(8, dense=4, routed=1000, architecture="sketch")
    with pytest.raises(DoesNotFit) as refused:
        place(sketch, machine(cpu(6 * GIB)), WANTED)
    assert refused.value.hint is not None
    assert "75% of the experts of each layer fit" in refused.value.hint
    assert " of the 8 experts" not in refused.value.hint


def test_the_disk_helps_only_those_who_ask_for_it() -> None:
    model, here = card(8, routed=300), machine(cpu(GIB), disk=2e9)
    with pytest.raises(DoesNotFit, match="is missing") as error:
        place(model, here, WANTED)
    assert "reading weights from the disk for every token would give " in (error.value.hint or "")
    slow = place(model, here, PlacementRequest(1024, filled=0, from_disk=True))
    assert slow.bottleneck == "disk"
    over = held_bytes(slow.assignments[0], part_sizes(model, 1024)) - GIB
    in_memory = (8 * 32 + 16 + 8 * 300 / 4) * MIB / 20e9
    assert slow.seconds_per_step == pytest.approx(in_memory + over / 4 / 2e9)
    assert any("are read from the disk when they are used" in reason for reason in slow.reasons)


def test_swap_is_no_memory_and_the_disk_does_not_hold_the_cache() -> None:
    nothing = Device("CPU", "cpu", 0, GIB, speed(20))
    with pytest.raises(DoesNotFit) as error:
        place(card(4), machine(nothing), WANTED)
    assert error.value.missing == need(card(4), 1024).total
    with pytest.raises(DoesNotFit) as error:
        place(card(4), machine(nothing, disk=1e9), PlacementRequest(1024, from_disk=True))
    assert error.value.missing == need(card(4), 1024).beyond_weights


def test_a_gpu_that_does_not_say_its_memory_gets_nothing() -> None:
    found = place(card(4), machine(cpu(GIB), gpu(0)), WANTED)
    assert held(found) == [("CPU", [0, 1, 2, 3], [], True)]
    assert any(reason.startswith("CUDA0 is unused: ") for reason in found.reasons)


def test_what_no_machine_can_be_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be free"):
        Device("CPU", "cpu", 2 * GIB, GIB, speed(20), "10.0.0.2:50052")
    with pytest.raises(UsageError, match="not above zero"):
        Link("10.0.0.2:50052", 1e-3, 0)
    with pytest.raises(UsageError, match=r"no link to 10\.0\.0\.2"):
        place(card(4), Machine("here", (cpu(GIB), cpu(GIB, node="10.0.0.2:50052"))), WANTED)
    with pytest.raises(Incompatible, match="no layers to place"):
        place(card(0), machine(cpu(GIB)), WANTED)
    for context, samples, kv_type in ((0, 1, "f16"), (512, 0, "f16"), (512, 1, "q3")):
        with pytest.raises(UsageError):
            PlacementRequest(context, samples, kv_type)


# Against what llama.cpp does by itself


def test_by_itself_llama_cpp_splits_by_free_memory() -> None:
    found = default_split(card(9), machine(cpu(GIB), gpu(3 * GIB), cpu(GIB, 5, "10.0.0.2:50052")), WANTED)
    assert held(found) == [
        ("CPU", [], [], False),
        ("10.0.0.2:50052", [0, 1, 2], [], False),  # 2.5 of ten, as the head counts
        ("CUDA0", [3, 4, 5, 6, 7, 8], [], True),
    ]
    assert found.flags == ("-c 1024", "-ngl 10", "-ts 3,7", "--rpc 10.0.0.2:50052")


def test_by_itself_llama_cpp_reads_what_does_not_fit_from_the_disk() -> None:
    model = card(8, routed=300)
    assert default_split(model, machine(cpu(GIB), disk=2e9), WANTED).bottleneck == "disk"
    with pytest.raises(DoesNotFit):
        default_split(model, machine(cpu(GIB)), WANTED)


def random_case(seed: int) -> tuple[ModelCard, Machine, PlacementRequest]:
    chance = random.Random(seed)
    layers = chance.randint(1, 12)
    model = card(
        layers,
        chance.randint(1, 60),
        chance.choice((0, chance.randint(1, 300))),
        tied=chance.random() < 0.3,
        nextn_layers=chance.choice((0, 0, layers // 3)),
    )
    nodes = [cpu(chance.randint(0, 2000) * MIB, chance.uniform(2, 80), f"10.0.0.{n}:1") for n in range(2)]
    cards = [gpu(chance.randint(0, 2000) * MIB, chance.uniform(10, 900), f"CUDA{n}") for n in range(2)]
    others = [each for each in (*nodes, *cards) if chance.random() < 0.6]
    here = machine(
        cpu(chance.randint(60, 4000) * MIB, chance.uniform(5, 80)),
        *others,
        disk=chance.choice((0.0, chance.uniform(1e8, 5e9))),
        round_trip=chance.uniform(0, 0.01),
        bandwidth=chance.uniform(1e7, 1e10),
    )
    wanted = PlacementRequest(chance.randint(1, 8) * 512, chance.randint(1, 8), from_disk=chance.random() < 0.5)
    return model, here, wanted


def test_it_is_never_slower_than_llama_cpps_own_split_and_keeps_to_the_memory() -> None:
    compared = faster = 0
    for seed in range(250):
        model, here, wanted = random_case(seed)
        price = part_sizes(model, wanted.context, wanted.samples, wanted.kv_type)
        try:
            default = default_split(model, here, wanted)
        except DoesNotFit:
            default = None
        try:
            found = place(model, here, wanted)
        except DoesNotFit as error:
            assert error.missing > 0, seed
            over = default and held_bytes(default.assignments[0], price) > here.devices[0].memory_free
            assert default is None or (over and not wanted.from_disk), seed
            continue
        layers = [n for each in found.assignments for n in each.layers]
        experts = sorted(n for each in found.assignments for n in each.experts)
        assert layers == list(range(len(price.layers))), seed
        assert experts == [n for n in layers if price.experts[n]], seed
        assert sum(each.head for each in found.assignments) == 1, seed
        for each in found.assignments:
            is_over = held_bytes(each, price) > each.device.memory_free
            assert not is_over or (each.is_local_cpu and wanted.from_disk and here.disk_read), seed
        assert found.seconds_per_step == pytest.approx(sum(each.seconds for each in found.assignments)), seed
        spilled = default and held_bytes(default.assignments[0], price) > here.devices[0].memory_free
        if default and (wanted.from_disk or not spilled):
            compared += 1
            faster += found.seconds_per_step < 0.9 * default.seconds_per_step
            assert found.seconds_per_step <= 1.02 * default.seconds_per_step, seed
        how = offload(model, layer_order(here)[1:], found.assignments)
        assert engine_split(model, how.gpu_layers, how.tensor_split) == [
            [n for n in share.layers if n < len(layers)] for share in _with_idle(found, how.devices)
        ], seed
    assert compared > 100 and faster > 30


def _with_idle(found: Placement, devices: tuple[Device, ...]) -> list[Share]:
    held = {id(each.device): each for each in found.assignments}
    return [held.get(id(device), Share(device, (), (), False)) for device in devices]


def engine_split(model: ModelCard, gpu_layers: int, split: tuple[int, ...]) -> list[list[int]]:
    """Which layers the engine gives to each device (`load_tensors` in src/llama-model.cpp), less those it skips."""
    slots = model.layers + 1
    first = max(slots - gpu_layers, 0)
    ends = [sum(split[: n + 1]) / (sum(split) or 1) for n in range(len(split))]
    found: list[list[int]] = [[] for _ in split]
    for slot in range(first, slots):
        to = next(n for n, end in enumerate(ends) if end > (slot - first) / min(gpu_layers, slots))
        if slot < model.layers - model.nextn_layers:
            found[to].append(slot)
    return found


def test_terms_add_up() -> None:
    assert StepTime(1, 2, 3, 4, 5, 6) + StepTime(1, 1, 1, 1, 1, 1) == StepTime(2, 3, 4, 5, 6, 7)
    assert StepTime(1, 2, 3, 4, 5, 6).total == 21
