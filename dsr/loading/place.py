"""Where a model's layers go. `dsr plan` and loading decide with the same functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from dsr.loading.context import SHORTEST_CONTEXT, slots_for
from dsr.loading.options import LoadOptions
from runtime.base.errors import DoesNotFit
from runtime.gguf.card import ModelCard, layer_count
from runtime.machine.machine import Machine
from runtime.placement.offload import offload
from runtime.placement.place import Placement, PlacementRequest, place
from runtime.placement.split import layer_order

if TYPE_CHECKING:
    from runtime.llama import OpenOptions

_FILLED = 2048  # tokens before the one whose time is predicted: question, thought and answer

PlaceFunction = Callable[[ModelCard, Machine, PlacementRequest], Placement]


def placement_request(
    context: int, samples: int = 1, kv_type: str = "f16", drafted: int = 0, *, kv_full: bool = False
) -> PlacementRequest:
    """What to place. Speeds hold for an answer of usual length, not for a full context."""
    return PlacementRequest(context, samples, kv_type, kv_full, drafted, filled=min(context // (2 * samples), _FILLED))


def find_placement(
    card: ModelCard,
    machine: Machine,
    request: PlacementRequest,
    *,
    shorten: bool = False,
    from_disk: bool = False,
    place: PlaceFunction = place,
) -> Placement:
    """The fastest placement in the memory that the devices can spare. Raises DoesNotFit.

    Where it does not fit, `shorten` halves the context, and `from_disk` reads weights from the disk at each step.
    """
    room = machine.usable()
    try:
        return place(card, room, request)
    except DoesNotFit:
        if shorten and request.context > SHORTEST_CONTEXT:
            half = max(request.context // 2, SHORTEST_CONTEXT)
            less = placement_request(half, request.samples, request.kv_type, request.drafted, kv_full=request.kv_full)
            return find_placement(card, machine, less, shorten=True, from_disk=from_disk, place=place)
        if from_disk and machine.disk_read and not request.from_disk:
            return place(card, room, replace(request, from_disk=True))
        raise


def apply_placement(options: OpenOptions, card: ModelCard, machine: Machine, placement: Placement) -> OpenOptions:
    """`options` for the engine with the layers where the placement has them. A GPU without layers is not opened."""
    how = offload(card, layer_order(machine)[1:], placement.assignments)
    used = [(each, count) for each, count in zip(how.devices, how.tensor_split, strict=True) if each.node or count]
    has_gpus = any(not device.node for device in machine.devices[1:])
    return replace(
        options,
        nodes=how.nodes,
        gpus=tuple(device.name for device, _ in used if not device.node) if has_gpus else None,
        layers=tuple(count for _, count in used),
        kept=how.overrides,
    )


def place_on_gpus(card: ModelCard, machine: Machine, engine_options: OpenOptions, options: LoadOptions) -> OpenOptions:
    """`engine_options` with the layers where a token is drawn fastest. Raises DoesNotFit.

    The context becomes shorter where the user gave none and it does not fit.
    """
    samples = samples_together(engine_options.slots, options)
    opened = engine_options
    request = placement_request(opened.context, samples, opened.kv_type, opened.drafted, kv_full=opened.kv_full)
    shorten = options.context is None
    placement = find_placement(card, machine, request, shorten=shorten, from_disk=not shorten)
    context = placement.request.context
    engine_options = replace(engine_options, context=context, slots=slots_for(context, options))
    return apply_placement(engine_options, card, machine, placement)


def samples_together(slots: int, options: LoadOptions) -> int:
    """How many samples will be drawn together, as far as that is known."""
    return slots if options.reply_tokens else 1


def describe_layers(options: OpenOptions, card: ModelCard) -> str:
    """One line: which layers are where."""
    others = (*options.nodes, *(options.gpus or ()))
    if not others:
        return "all layers stay with the CPU: that is faster"
    kept = any("exps" in each for each in options.kept)
    experts = ", routed experts without room there with the CPU" if kept else ""
    return f"{sum(options.layers)} of {layer_count(card) + 1} layers at {', '.join(others)}{experts}"
