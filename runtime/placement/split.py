"""Splits a model over the devices of a machine: the fastest split, and the one llama.cpp chooses itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from runtime.machine.machine import Device, Machine
from runtime.placement.latency import LatencyModel, Share, fixed_bytes, held_bytes, is_local_cpu
from runtime.placement.memory import PartSizes
from runtime.placement.split_problem import Pool, Reload, Solution, SplitProblem, Stage
from runtime.placement.split_solver import missing_memory, solve


def layer_order(machine: Machine) -> tuple[Device, ...]:
    """The devices in the order in which llama.cpp fills them: the local CPU, the devices of nodes, the local GPUs."""
    home, *others = machine.devices
    return (home, *(each for each in others if each.node), *(each for each in others if not each.node))


def split_problem(
    latency: LatencyModel, sizes: PartSizes, devices: Sequence[Device], *, from_disk: bool
) -> SplitProblem:
    """The problem for the solver. A local GPU is two stages: layers without their routed experts, then whole layers."""
    layers = range(len(sizes.layers))
    cache, nothing = sizes.kv_cache, [0] * len(sizes.layers)
    whole = [sizes.layers[n] + sizes.experts[n] + cache[n] for n in layers]
    alone = [sizes.layers[n] + cache[n] for n in layers]
    home, stages, pools = devices[0], [], []
    for number, device in enumerate(devices):
        dense = [latency.layer(device, n).total for n in layers]
        if not device.node and not is_local_cpu(device) and any(sizes.experts):
            away = [latency.crossing(device, n).total + latency.experts(home, n).total for n in layers]
            stages.append(Stage(number, [dense[n] + away[n] for n in layers], alone, cache, sizes.experts))
        seconds = [dense[n] + latency.experts(device, n).total for n in layers]
        stages.append(Stage(number, seconds, whole, cache, nothing if number else sizes.experts))
        use, head = fixed_bytes(device, sizes)
        visit, output = latency.visit(device).total, latency.head(device).total
        pools.append(Pool(device.memory_free, use, visit, head, output))
    reload = None
    if from_disk and latency.machine.disk_read:
        reload = Reload(latency.reload(1, 0).total, latency.reload(0, 1).total)
    return SplitProblem(tuple(stages), tuple(pools), pools[0].fixed - sizes.embedding, reload)


def fastest_split(latency: LatencyModel, sizes: PartSizes, *, from_disk: bool = False) -> tuple[Share, ...] | None:
    """The fastest split; None if nothing fits. Unused devices have no share, except the local CPU."""
    devices = usable_devices(latency.machine, sizes)
    problem = split_problem(latency, sizes, devices, from_disk=from_disk)
    found = solve(problem)
    return _shares(problem, found, devices) if found else None


def missing_bytes(latency: LatencyModel, sizes: PartSizes, *, from_disk: bool = False) -> int:
    """The bytes that this machine's memory lacks for any split; 0 if one fits."""
    return missing_memory(split_problem(latency, sizes, usable_devices(latency.machine, sizes), from_disk=from_disk))


def usable_devices(machine: Machine, sizes: PartSizes) -> tuple[Device, ...]:
    """The devices in layer order, without those that are too small for the smallest part of a layer."""
    least = min(map(sum, zip(sizes.layers, sizes.kv_cache, strict=True)))
    home, *others = layer_order(machine)
    return (home, *(each for each in others if fixed_bytes(each, sizes)[0] + least <= each.memory_free))


def default_shares(machine: Machine, sizes: PartSizes) -> tuple[Share, ...]:
    """llama.cpp's own split: as many of the last layers as fit go to the devices in proportion to their free memory,
    with the head as one more layer; the rest stays on the local CPU, whose memory is not checked (`load_tensors` in
    src/llama-model.cpp)."""
    layers = len(sizes.layers)
    home, *others = layer_order(machine)
    memory = [device.memory_free for device in others]
    for offloaded in range(layers + 1 if any(memory) else 0, -1, -1):
        slots = _proportional(offloaded, memory)
        first = layers + 1 - offloaded
        shares = [_whole(home, range(first), layers, sizes)]
        for device, (start, end) in zip(others, pairwise(accumulate(slots, initial=first)), strict=True):
            if end > start:
                shares.append(_whole(device, range(start, end), layers, sizes))
        if all(held_bytes(share, sizes) <= share.device.memory_free for share in shares[1:]):
            return tuple(shares)
    raise AssertionError("with nothing offloaded there is nothing to fit")


def _proportional(count: int, weights: Sequence[int]) -> list[int]:
    """How many of `count` slots each device gets: slot i goes to the first whose cumulative share exceeds i/count."""
    whole = sum(weights)
    bounds = list(accumulate(weights))
    found = [0] * len(weights)
    for slot in range(count):
        found[next(n for n, bound in enumerate(bounds) if bound * count > slot * whole)] += 1
    return found


def _whole(device: Device, slots: range, layers: int, sizes: PartSizes) -> Share:
    held = tuple(n for n in slots if n < layers)
    return Share(device, held, tuple(n for n in held if sizes.experts[n]), layers in slots)


def _shares(problem: SplitProblem, found: Solution, devices: Sequence[Device]) -> tuple[Share, ...]:
    layers: dict[int, list[int]] = {number: [] for number in range(len(devices))}
    experts: dict[int, list[int]] = {number: [] for number in range(len(devices))}
    routed = problem.stages[0].pool0
    for stage, (start, end) in zip(problem.stages, pairwise(found.starts), strict=True):
        layers[stage.pool] += range(start, end)
        at_home = stage.pool == 0 or any(stage.pool0)
        experts[0 if at_home else stage.pool] += (n for n in range(start, end) if routed[n])
    shares = (
        Share(device, tuple(layers[n]), tuple(sorted(experts[n])), found.head == n) for n, device in enumerate(devices)
    )
    return tuple(share for share in shares if share.is_local_cpu or share.layers or share.head)
