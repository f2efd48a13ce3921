"""Turns a split into llama.cpp's options for offloading. Pure.

The rules are those of `load_tensors` in src/llama-model.cpp: the last `gpu_layers` layers, with the head as one more,
go to the devices in order and in the proportions of `tensor_split`. MTP layers lie between the last layer and the head
and count as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.gguf.card import ModelCard
from runtime.gguf.kv_types import kv_types
from runtime.machine.machine import Device
from runtime.placement.latency import Share


@dataclass(frozen=True, slots=True)
class Offload:
    """`tensor_split` has a number for each of `devices`. Tensors whose names match `overrides` stay on the CPU."""

    devices: tuple[Device, ...]
    gpu_layers: int
    tensor_split: tuple[int, ...]
    overrides: tuple[str, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(device.node for device in self.devices if device.node))


def offload(card: ModelCard, devices: Sequence[Device], shares: Sequence[Share]) -> Offload:
    """The options for a split. `devices` are all except the local CPU, in layer order; unused nodes are dropped."""
    home, *others = shares
    used = {share.device.node for share in others}
    seen = tuple(device for device in devices if not device.node or device.node in used)
    counts = {_key(share.device): len(share.layers) for share in others}
    if others:
        counts[_key(others[-1].device)] += card.nextn_layers + 1
    overrides = []
    if away := [n for share in others for n in share.layers if n in home.experts]:
        kept = any(share.experts for share in others)
        overrides.append(rf"blk\.({_numbers(away)})\.ffn_.*_exps" if kept else "exps")
    if home.head and others:
        overrides.append("^output")
        if all(tensor.name != "output.weight" for tensor in card.tensors):
            overrides.append("^token_embd")
    split = tuple(counts.get(_key(device), 0) for device in seen)
    return Offload(seen, sum(split), split, tuple(overrides))


def flags(how: Offload, context: int, samples: int, kv_type: str, *, full: bool = False) -> tuple[str, ...]:
    """The options for llama.cpp's own programs."""
    found = [f"-c {context}", f"-ngl {how.gpu_layers}"]
    if len(how.devices) > 1 and how.gpu_layers:
        found.append(f"-ts {','.join(map(str, how.tensor_split))}")
    found += [
        f'-ot "{pattern}=CPU"' if re.search(r"\W", pattern) else f"-ot {pattern}=CPU" for pattern in how.overrides
    ]
    if samples > 1:
        found += [f"-np {samples}", "-kvu"]
    types = kv_types(kv_type)
    found += [
        f"{option} {kind.name.lower()}"
        for option, kind in (("-ctk", types.keys), ("-ctv", types.values))
        if kind.name != "F16"
    ]
    if full:
        found.append("--swa-full")
    if how.nodes:
        found.append(f"--rpc {','.join(how.nodes)}")
    return tuple(found)


def _key(device: Device) -> tuple[str, str]:
    return device.node, device.name


def _numbers(layers: Sequence[int]) -> str:
    """A pattern for layer numbers: (3, 4, ... 12) becomes '[3-9]|1[0-2]'."""
    parts = []
    for tens in dict.fromkeys(n // 10 for n in layers):
        ones = [n % 10 for n in layers if n // 10 == tens]
        is_run = len(ones) > 2 and ones[-1] - ones[0] + 1 == len(ones)
        digits = f"{ones[0]}-{ones[-1]}" if is_run else "".join(map(str, ones))
        parts.append(f"{tens or ''}{digits if len(digits) == 1 else f'[{digits}]'}")
    return "|".join(parts)
