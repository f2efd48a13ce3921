"""The two ways to split a model over a machine: the fastest, and what llama.cpp does by itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from runtime.machine.machine import Device, Machine
from runtime.placement.frontier import fastest, lacking
from runtime.placement.latency import Latency, Share, fixed_bytes, held_bytes, is_home
from runtime.placement.memory import Costs
from runtime.placement.split_program import Pool, Program, Reload, Solution, Stage


def in_order(machine: Machine) -> tuple[Device, ...]:
    """As llama.cpp passes the layers on: this machine's CPU, the devices of nodes, its own GPUs."""
    home, *others = machine.devices
    return (home, *(each for each in others if each.node), *(each for each in others if not each.node))


def program(latency: Latency, costs: Costs, devices: Sequence[Device], *, from_disk: bool) -> Program:
    """A GPU of this machine is two stages: layers without their routed experts, then whole ones."""
    layers = range(len(costs.layers))
    cache, nothing = costs.kv_cache, [0] * len(costs.layers)
    whole = [costs.layers[n] + costs.experts[n] + cache[n] for n in layers]
    alone = [costs.layers[n] + cache[n] for n in layers]
    home, stages, pools = devices[0], [], []
    for number, device in enumerate(devices):
        dense = [latency.layer(device, n).total for n in layers]
        if not device.node and not is_home(device) and any(costs.experts):
            away = [latency.crossing(device, n).total + latency.experts(home, n).total for n in layers]
            stages.append(Stage(number, [dense[n] + away[n] for n in layers], alone, cache, costs.experts))
        seconds = [dense[n] + latency.experts(device, n).total for n in layers]
        stages.append(Stage(number, seconds, whole, cache, nothing if number else costs.experts))
        use, head = fixed_bytes(device, costs)
        visit, output = latency.visit(device).total, latency.head(device).total
        pools.append(Pool(device.memory_free, use, visit, head, output))
    reload = None
    if from_disk and latency.machine.disk_read:
        reload = Reload(latency.reload(1, 0).total, latency.reload(0, 1).total)
    return Program(tuple(stages), tuple(pools), pools[0].use - costs.embedding, reload)


def fastest_split(latency: Latency, costs: Costs, *, from_disk: bool = False) -> tuple[Share, ...] | None:
    """None where nothing fits. Devices without a part are left out, this machine's CPU never."""
    devices = useful(latency.machine, costs)
    asked = program(latency, costs, devices, from_disk=from_disk)
    found = fastest(asked)
    return _shares(asked, found, devices) if found else None


def missing_bytes(latency: Latency, costs: Costs, *, from_disk: bool = False) -> int:
    """By how much this machine's memory is too small for any split; 0 where one fits."""
    return lacking(program(latency, costs, useful(latency.machine, costs), from_disk=from_disk))


def useful(machine: Machine, costs: Costs) -> tuple[Device, ...]:
    """The devices in order, without those in which not even the smallest part of a layer has room."""
    least = min(map(sum, zip(costs.layers, costs.kv_cache, strict=True)))
    home, *others = in_order(machine)
    return (home, *(each for each in others if fixed_bytes(each, costs)[0] + least <= each.memory_free))


def default_shares(machine: Machine, costs: Costs) -> tuple[Share, ...]:
    """llama.cpp's own: the most layers from the end that fit, in proportion to free memory, the head as one more; the
    rest is this machine's (`load_tensors` in src/llama-model.cpp). Their memory at home is not looked at."""
    layers = len(costs.layers)
    home, *others = in_order(machine)
    memory = [device.memory_free for device in others]
    for offloaded in range(layers + 1 if any(memory) else 0, -1, -1):
        slots = _proportional(offloaded, memory)
        first = layers + 1 - offloaded
        shares = [_whole(home, range(first), layers, costs)]
        for device, (start, end) in zip(others, pairwise(accumulate(slots, initial=first)), strict=True):
            if end > start:
                shares.append(_whole(device, range(start, end), layers, costs))
        if all(held_bytes(share, costs) <= share.device.memory_free for share in shares[1:]):
            return tuple(shares)
    raise AssertionError("with nothing offloaded there is nothing to fit")


def _proportional(count: int, weights: Sequence[int]) -> list[int]:
    """How many of `count` slots fall to each: slot i to the first whose running share of the whole is above i/count."""
    whole = sum(weights)
    bounds = list(accumulate(weights))
    found = [0] * len(weights)
    for slot in range(count):
        found[next(n for n, bound in enumerate(bounds) if bound * count > slot * whole)] += 1
    return found


def _whole(device: Device, slots: range, layers: int, costs: Costs) -> Share:
    held = tuple(n for n in slots if n < layers)
    return Share(device, held, tuple(n for n in held if costs.experts[n]), layers in slots)


def _shares(asked: Program, found: Solution, devices: Sequence[Device]) -> tuple[Share, ...]:
    layers: dict[int, list[int]] = {number: [] for number in range(len(devices))}
    experts: dict[int, list[int]] = {number: [] for number in range(len(devices))}
    routed = asked.stages[0].home
    for stage, (start, end) in zip(asked.stages, pairwise(found.starts), strict=True):
        layers[stage.pool] += range(start, end)
        at_home = stage.pool == 0 or any(stage.home)
        experts[0 if at_home else stage.pool] += (n for n in range(start, end) if routed[n])
    shares = (
        Share(device, tuple(layers[n]), tuple(sorted(experts[n])), found.head == n) for n, device in enumerate(devices)
    )
    return tuple(share for share in shares if share.is_home or share.layers or share.head)
