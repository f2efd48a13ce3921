"""Why a split is as it is, in sentences with figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from runtime.base.types import ByteCount
from runtime.machine.machine import Device
from runtime.placement.latency import Latency, Share, Terms, fits_home, fixed_bytes, held_bytes
from runtime.placement.memory import Costs
from runtime.placement.split import fastest_split, in_order

_TERMS = {
    "bandwidth": "memory bandwidth",
    "compute": "compute",
    "attention": "attention over the KV cache",
    "overhead": "the engine's own steps",
    "disk": "disk",
}


def binding(shares: Sequence[Share], terms: Sequence[Terms]) -> str:
    """The term that takes most of a step."""
    return max(_times(shares, terms), key=lambda each: each[1])[0]


def reasons(latency: Latency, need: Costs, shares: Sequence[Share], context: int, kv_type: str) -> tuple[str, ...]:
    """One sentence for each decision: memory, what is where, what is left out, what takes the time."""
    home, *others = shares
    terms = latency.of(shares, need)
    found = [_memory(latency, need, context, kv_type)]
    for share in others:
        found.append(_held(latency, need, share, home))
    found += _experts(need, home, others)
    found += _home(latency, need, home, others)
    used = [share.device for share in shares]
    found += [_left_out(latency, need, device, home) for device in in_order(latency.machine) if device not in used]
    name, seconds = max(_times(shares, terms), key=lambda each: each[1])
    whole = reduce(add, terms).total
    slowest = max(zip(shares, terms, strict=True), key=lambda each: each[1].total)
    found.append(
        f"a step takes {duration(whole)}, {_percent(seconds, whole)} of it {name}; "
        f"{_name(slowest[0].device)} takes {_percent(slowest[1].total, whole)}"
    )
    return tuple(found)


def alternatives(
    latency: Latency, need: Costs, shares: Sequence[Share], default: Sequence[Share] | None, samples: int
) -> tuple[str, ...]:
    """Other splits that were looked at, with their predicted speed."""
    home, *others = latency.machine.devices
    layers = range(len(need.layers))
    routed = tuple(n for n in layers if need.experts[n])
    found: list[tuple[str, Sequence[Share] | None]] = []
    if others and any(share.device in others for share in shares):
        alone = Share(home, tuple(layers), routed, True)
        fits = fits_home(alone, need, from_disk=latency.machine.disk_read > 0)
        found.append((f"{_name(home)} alone", [alone] if fits else None))
    if default is None or [_what(share) for share in default] != [_what(share) for share in shares]:
        found.append(("llama.cpp's own split", default))
    local = tuple(device for device in others if not device.node)
    if local and any(share.device.node for share in shares):
        without = replace(latency, machine=replace(latency.machine, devices=(home, *local)))
        found.append(("without nodes", fastest_split(without, need)))
    return tuple(f"{name}: {_fate(latency, need, split, samples)}" for name, split in found)


def speed(tokens_per_second: float) -> str:
    return f"{tokens_per_second:{'.0f' if tokens_per_second >= 1000 else '.3g'}} tokens/s"


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def layer_range(layers: Sequence[int]) -> str:
    """'layer 3', 'layers 3-60'; the layers of a device are neighbours."""
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"


def _times(shares: Sequence[Share], terms: Sequence[Terms]) -> list[tuple[str, float]]:
    whole = reduce(add, terms)
    found = [(words, getattr(whole, name)) for name, words in _TERMS.items()]
    links: dict[str, float] = {}
    for share, each in zip(shares, terms, strict=True):
        to = share.device.node or share.device.name
        links[to] = links.get(to, 0.0) + each.link
    return found + [(f"link to {to}", seconds) for to, seconds in links.items()]


def _memory(latency: Latency, need: Costs, context: int, kv_type: str) -> str:
    every = range(len(need.layers))
    whole = need.need(every, every, head=True, home=True)
    routed = sum(need.experts)
    of_them = f", {ByteCount(routed)} of them routed experts," if routed else ""
    free = ", ".join(f"{ByteCount(each.memory_free)} on {_name(each)}" for each in in_order(latency.machine))
    return (
        f"{whole.weights} of weights{of_them} and {whole.kv_cache} of KV cache ({context} tokens, {kv_type}) "
        f"need a place; there is room for {free}"
    )


def _held(latency: Latency, need: Costs, share: Share, home: Share) -> str:
    device, free = share.device, ByteCount(share.device.memory_free)
    takes = ByteCount(held_bytes(share, need))
    if not share.layers:
        return f"{_name(device)} holds the head alone: {takes} of {free}"
    middle = share.layers[len(share.layers) // 2]
    there, here = (
        (latency.layer(each, middle) + latency.experts(each, middle)).total for each in (device, home.device)
    )
    with_routed = _routed(need, share.layers)
    partly = f", {len(share.experts)} with their routed experts," if len(share.experts) < len(with_routed) else ""
    with_head = " and the head" if share.head else ""
    hop = latency.visit(device).total
    trip = f"; the way there and back takes {duration(hop)}" if hop else ""
    return (
        f"{_name(device)} holds {layer_range(share.layers)}{partly}{with_head}, {takes} of {free}: "
        f"a whole layer takes {duration(there)} there, "
        f"{duration(here)} on {_name(home.device)}{trip}"
    )


def _experts(need: Costs, home: Share, others: Sequence[Share]) -> list[str]:
    found = []
    for share in others:
        away = [n for n in share.layers if n in home.experts]
        if not away:
            continue
        alone = sum(need.layers[n] for n in share.layers)
        size = ByteCount(sum(need.experts[n] for n in away))
        found.append(
            f"the {len(away)} layers of routed experts ({layer_range(away)}) stay on {_name(home.device)}: "
            f"{size} against {ByteCount(share.device.memory_free)} of room on {_name(share.device)}; "
            f"the attention and the dense parts ({ByteCount(alone)}) go to the GPU first "
            "because every token meets them, and of the experts only some"
        )
    return found


def _home(latency: Latency, need: Costs, home: Share, others: Sequence[Share]) -> list[str]:
    found = []
    name, free = _name(home.device), ByteCount(home.device.memory_free)
    over = held_bytes(home, need) - home.device.memory_free
    if home.layers and not others:
        found.append(f"{name} computes all {len(home.layers)} layers")
    elif home.layers:
        full = [_name(each.device) for each in others]
        stay = "stays" if len(home.layers) == 1 else "stay"
        found.append(f"{layer_range(home.layers)} {stay} on {name}, beside what {' and '.join(full)} can take")
    elif not home.experts:
        found.append(f"no layer stays on {name}: the others are faster and have room")
    if over > 0:
        found.append(
            f"{ByteCount(over)} more than the {free} of room on {name} are read from the disk when they are met"
        )
    return found


def _left_out(latency: Latency, need: Costs, device: Device, home: Share) -> str:
    least = fixed_bytes(device, need)[0] + min(map(sum, zip(need.layers, need.kv_cache, strict=True)))
    if least > device.memory_free:
        free, buffers = ByteCount(device.memory_free), ByteCount(least)
        return f"{_name(device)} is left out: {free} of room, and its buffers with one layer take {buffers}"
    middle = len(need.layers) // 2
    layer = latency.layer(device, middle) + latency.experts(device, middle)
    here = latency.layer(home.device, middle) + latency.experts(home.device, middle)
    hop = latency.visit(device).total
    trip = f" and the way there and back {duration(hop)}" if hop else ""
    return (
        f"{_name(device)} is left out, a step is shorter without it: a layer takes {duration(layer.total)} "
        f"there{trip}, {duration(here.total)} on {_name(home.device)}"
    )


def _fate(latency: Latency, need: Costs, split: Sequence[Share] | None, samples: int) -> str:
    if split is None:
        return "does not fit"
    terms = latency.of(split, need)
    over = max(0, held_bytes(split[0], need) - split[0].device.memory_free)
    disk = f", {ByteCount(over)} of it from the disk" if over else ""
    return f"{speed(samples / reduce(add, terms).total)}{disk}"


def _routed(need: Costs, layers: Sequence[int]) -> list[int]:
    return [n for n in layers if need.experts[n]]


def _what(share: Share) -> tuple[object, ...]:
    return share.device, share.layers, share.experts, share.head


def _name(device: Device) -> str:
    if device.node:
        return device.name if device.node in device.name else f"{device.name} of {device.node}"
    return "this machine's CPU" if device.kind == "cpu" else device.name


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "0%"
