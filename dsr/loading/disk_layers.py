"""The layers of a model that leave weights on the disk. Pure."""

from __future__ import annotations

from runtime.from_disk.forecast import DiskLayer, smallest_memory
from runtime.from_disk.units import Units, units_of
from runtime.gguf.card import ModelCard, layer_count
from runtime.placement import memory


def disk_layers(card: ModelCard, units: Units) -> tuple[DiskLayer, ...]:
    """The layers of `units` as the forecast sees them."""
    if not units.routed:
        return tuple(map(DiskLayer, units.paged_sizes))
    layers = zip(units.layers, units.paged_sizes, strict=True)
    return tuple(DiskLayer(size, units.experts, card.experts_used_in(layer)) for layer, size in layers)


def layers_to_leave(card: ModelCard, need: memory.MemoryNeed, available: int) -> tuple[int, ...]:
    """The fewest layers of a dense model to leave on the disk, evenly spread, so that each one can be read while the
    layers before it compute. All layers if even that is not enough."""
    units = units_of(card, range(layer_count(card)))
    layers = disk_layers(card, units)
    for number in range(1, len(layers)):
        places = [(2 * n + 1) * len(layers) // (2 * number) for n in range(number)]
        gone = sum(units.sizes[place] for place in places)
        if need.total - gone + smallest_memory([layers[place] for place in places]) <= available:
            return tuple(units.layers[place] for place in places)
    return units.layers
