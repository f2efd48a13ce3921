"""Where a model's layers go on the devices there are: what `dsr plan` says is what `dsr chat` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.base.errors import DoesNotFit
from runtime.gguf.card import ModelCard
from runtime.gguf.layers import layer_count
from runtime.machine.machine import Machine
from runtime.placement.offload import offload
from runtime.placement.place import Placement, PlacementRequest, place
from runtime.placement.split import layer_order

if TYPE_CHECKING:
    from runtime.llama import OpenOptions

# Cache that nobody asked for would push layers off a graphics card: a reasoning model does with this.
ENOUGH_CONTEXT = 32768
SHORTEST_CONTEXT = 2048
_BEHIND = 2048  # tokens before the one whose time is told: question, thought and answer

Place = Callable[[ModelCard, Machine, PlacementRequest], Placement]


def wanted(context: int, samples: int = 1, kv_type: str = "f16", drafted: int = 0) -> PlacementRequest:
    """Speeds hold for an answer of some length, not for a context that is full."""
    return PlacementRequest(context, samples, kv_type, drafted, filled=min(context // (2 * samples), _BEHIND))


def placed(
    card: ModelCard,
    machine: Machine,
    asked: PlacementRequest,
    *,
    shorter: bool = False,
    from_disk: bool = False,
    place: Place = place,
) -> Placement:
    """The fastest placement in what the devices of `machine` can spare.

    Where it does not fit the context may become `shorter`, or weights come `from_disk`. Raises DoesNotFit.
    """
    room = machine.spared()
    try:
        return place(card, room, asked)
    except DoesNotFit:
        if shorter and asked.context > SHORTEST_CONTEXT:
            half = max(asked.context // 2, SHORTEST_CONTEXT)
            less = wanted(half, asked.samples, asked.kv_type, asked.drafted)
            return placed(card, machine, less, shorter=True, from_disk=from_disk, place=place)
        if from_disk and machine.disk_read and not asked.from_disk:
            return place(card, room, replace(asked, from_disk=True))
        raise


def carried_out(options: OpenOptions, card: ModelCard, machine: Machine, placement: Placement) -> OpenOptions:
    """`options` with the layers where the placement has them. A GPU without any is not touched at all."""
    how = offload(card, layer_order(machine)[1:], placement.assignments)
    dealt = [(each, count) for each, count in zip(how.devices, how.tensor_split, strict=True) if each.node or count]
    has_gpus = any(not device.node for device in machine.devices[1:])
    return replace(
        options,
        nodes=how.nodes,
        gpus=tuple(device.name for device, _ in dealt if not device.node) if has_gpus else None,
        layers=tuple(count for _, count in dealt),
        kept=how.overrides,
    )


def in_words(options: OpenOptions, card: ModelCard) -> str:
    """Which layers are where, in a line."""
    others = (*options.nodes, *(options.gpus or ()))
    if not others:
        return "all layers stay with the CPU: that is faster"
    kept = any("exps" in each for each in options.kept)
    experts = ", routed experts without room there with the CPU" if kept else ""
    return f"{sum(options.layers)} of {layer_count(card) + 1} layers at {', '.join(others)}{experts}"
