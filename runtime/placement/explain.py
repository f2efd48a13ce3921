"""Explains a split in sentences with figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from runtime.base.types import ByteCount
from runtime.machine.machine import Device
from runtime.placement.latency import LatencyModel, Share, StepTime, fits_local_memory, fixed_bytes, held_bytes
from runtime.placement.memory import PartSizes
from runtime.placement.split import fastest_split, layer_order

_TERMS = {
    "bandwidth": "memory bandwidth",
    "compute": "compute",
    "attention": "attention over the KV cache",
    "overhead": "the engine's own steps",
    "disk": "disk",
}


def bottleneck(shares: Sequence[Share], times: Sequence[StepTime]) -> str:
    """The part of a step that takes the most time."""
    return max(_times(shares, times), key=lambda each: each[1])[0]


def reasons(
    latency: LatencyModel, sizes: PartSizes, shares: Sequence[Share], context: int, kv_type: str
) -> tuple[str, ...]:
    """One sentence for each decision: memory, what each device holds, which devices are unused, what takes the time."""
    home, *others = shares
    times = latency.of(shares, sizes)
    found = [_memory(latency, sizes, context, kv_type)]
    for share in others:
        found.append(_held(latency, sizes, share, home))
    found += _experts(sizes, home, others)
    found += _home(latency, sizes, home, others)
    used = [share.device for share in shares]
    found += [_left_out(latency, sizes, device, home) for device in layer_order(latency.machine) if device not in used]
    name, seconds = max(_times(shares, times), key=lambda each: each[1])
    whole = reduce(add, times).total
    slowest = max(zip(shares, times, strict=True), key=lambda each: each[1].total)
    found.append(
        f"a step takes {duration(whole)}, {_percent(seconds, whole)} of it {name}; "
        f"{_name(slowest[0].device)} takes {_percent(slowest[1].total, whole)}"
    )
    return tuple(found)


def alternatives(
    latency: LatencyModel, sizes: PartSizes, shares: Sequence[Share], default: Sequence[Share] | None, samples: int
) -> tuple[str, ...]:
    """Other splits with their predicted speed."""
    home, *others = latency.machine.devices
    layers = range(len(sizes.layers))
    routed = tuple(n for n in layers if sizes.experts[n])
    found: list[tuple[str, Sequence[Share] | None]] = []
    if others and any(share.device in others for share in shares):
        alone = Share(home, tuple(layers), routed, True)
        fits = fits_local_memory(alone, sizes, from_disk=latency.machine.disk_read > 0)
        found.append((f"{_name(home)} alone", [alone] if fits else None))
    if default is None or [_what(share) for share in default] != [_what(share) for share in shares]:
        found.append(("llama.cpp's own split", default))
    local = tuple(device for device in others if not device.node)
    if local and any(share.device.node for share in shares):
        without = replace(latency, machine=replace(latency.machine, devices=(home, *local)))
        found.append(("without nodes", fastest_split(without, sizes)))
    return tuple(f"{name}: {_fate(latency, sizes, split, samples)}" for name, split in found)


def speed(tokens_per_second: float) -> str:
    return f"{tokens_per_second:{'.0f' if tokens_per_second >= 1000 else '.3g'}} tokens/s"


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def layer_range(layers: Sequence[int]) -> str:
    """'layer 3', 'layers 3-60'. The layers of a device are consecutive."""
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"


def _times(shares: Sequence[Share], times: Sequence[StepTime]) -> list[tuple[str, float]]:
    whole = reduce(add, times)
    found = [(words, getattr(whole, name)) for name, words in _TERMS.items()]
    links: dict[str, float] = {}
    for share, each in zip(shares, times, strict=True):
        to = share.device.node or share.device.name
        links[to] = links.get(to, 0.0) + each.link
    return found + [(f"link to {to}", seconds) for to, seconds in links.items()]


def _memory(latency: LatencyModel, sizes: PartSizes, context: int, kv_type: str) -> str:
    every = range(len(sizes.layers))
    whole = sizes.need(every, every, head=True, local=True)
    routed = sum(sizes.experts)
    of_them = f" ({ByteCount(routed)} of them routed experts)" if routed else ""
    free = ", ".join(f"{ByteCount(each.memory_free)} on {_name(each)}" for each in layer_order(latency.machine))
    return (
        f"the model needs {whole.weights} for weights{of_them} and {whole.kv_cache} for the KV cache "
        f"({context} tokens, {kv_type}); free memory: {free}"
    )


def _held(latency: LatencyModel, sizes: PartSizes, share: Share, home: Share) -> str:
    device, free = share.device, ByteCount(share.device.memory_free)
    takes = ByteCount(held_bytes(share, sizes))
    if not share.layers:
        return f"{_name(device)} holds only the head: {takes} of {free}"
    middle = share.layers[len(share.layers) // 2]
    there, here = (
        (latency.layer(each, middle) + latency.experts(each, middle)).total for each in (device, home.device)
    )
    with_routed = _routed(sizes, share.layers)
    partly = (
        f" ({len(share.experts)} of them with their routed experts)" if len(share.experts) < len(with_routed) else ""
    )
    with_head = " and the head" if share.head else ""
    hop = latency.visit(device).total
    trip = f"; the round trip takes {duration(hop)}" if hop else ""
    return (
        f"{_name(device)} holds {layer_range(share.layers)}{partly}{with_head}, {takes} of {free}: "
        f"a whole layer takes {duration(there)} there, "
        f"{duration(here)} on {_name(home.device)}{trip}"
    )


def _experts(sizes: PartSizes, home: Share, others: Sequence[Share]) -> list[str]:
    found = []
    for share in others:
        away = [n for n in share.layers if n in home.experts]
        if not away:
            continue
        alone = sum(sizes.layers[n] for n in share.layers)
        size = ByteCount(sum(sizes.experts[n] for n in away))
        found.append(
            f"the {len(away)} layers of routed experts ({layer_range(away)}) stay on {_name(home.device)}: "
            f"they take {size}, and {_name(share.device)} has {ByteCount(share.device.memory_free)}; "
            f"the attention and dense parts ({ByteCount(alone)}) go to the GPU first, "
            "because every token uses them and only some of the experts"
        )
    return found


def _home(latency: LatencyModel, sizes: PartSizes, home: Share, others: Sequence[Share]) -> list[str]:
    found = []
    name, free = _name(home.device), ByteCount(home.device.memory_free)
    over = held_bytes(home, sizes) - home.device.memory_free
    if home.layers and not others:
        found.append(f"{name} computes all {len(home.layers)} layers")
    elif home.layers:
        full = [_name(each.device) for each in others]
        stay = "stays" if len(home.layers) == 1 else "stay"
        found.append(f"{layer_range(home.layers)} {stay} on {name}: the rest fills {' and '.join(full)}")
    elif not home.experts:
        found.append(f"no layer is on {name}: the other devices are faster and have room")
    if over > 0:
        found.append(
            f"{name} has {free}, {ByteCount(over)} too little: these weights are read from the disk when they are used"
        )
    return found


def _left_out(latency: LatencyModel, sizes: PartSizes, device: Device, home: Share) -> str:
    least = fixed_bytes(device, sizes)[0] + min(map(sum, zip(sizes.layers, sizes.kv_cache, strict=True)))
    if least > device.memory_free:
        free, buffers = ByteCount(device.memory_free), ByteCount(least)
        return f"{_name(device)} is unused: one layer with its buffers takes {buffers}, and it has {free}"
    middle = len(sizes.layers) // 2
    layer = latency.layer(device, middle) + latency.experts(device, middle)
    here = latency.layer(home.device, middle) + latency.experts(home.device, middle)
    hop = latency.visit(device).total
    trip = f" and the round trip {duration(hop)}" if hop else ""
    return (
        f"{_name(device)} is unused, because a step is shorter without it: a layer takes {duration(layer.total)} "
        f"there{trip}, {duration(here.total)} on {_name(home.device)}"
    )


def _fate(latency: LatencyModel, sizes: PartSizes, split: Sequence[Share] | None, samples: int) -> str:
    if split is None:
        return "does not fit"
    times = latency.of(split, sizes)
    over = max(0, held_bytes(split[0], sizes) - split[0].device.memory_free)
    disk = f", {ByteCount(over)} of it from the disk" if over else ""
    return f"{speed(samples / reduce(add, times).total)}{disk}"


def _routed(sizes: PartSizes, layers: Sequence[int]) -> list[int]:
    return [n for n in layers if sizes.experts[n]]


def _what(share: Share) -> tuple[object, ...]:
    return share.device, share.layers, share.experts, share.head


def _name(device: Device) -> str:
    if device.node:
        return device.name if device.node in device.name else f"{device.name} of {device.node}"
    return "this machine's CPU" if device.kind == "cpu" else device.name


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "0%"
