"""Predicts how long a pipeline of devices takes for one step, which is one token of each sample. Pure.

The terms are those of Halda (arXiv 2504.08791, section 3): weights read, KV cache, disk and links. The pipeline is
llama.cpp's: each device holds a range of layers, activations pass through this machine between devices, and a GPU may
leave the routed experts of its layers to the local CPU. Halda counts floating-point operations; here speeds are
measured for each type of weights (`runtime.machine.machine.Speed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

from runtime.base.errors import UsageError
from runtime.gguf.card import ModelCard, ModelParts, experts_met, parts
from runtime.machine.machine import Device, Link, Machine
from runtime.placement.cache_shape import CacheShape, cache_shape, head_lengths, passes
from runtime.placement.cache_shape import number as metadata_number
from runtime.placement.memory import PartSizes

_FLOAT = 4  # activations and logits travel as f32


@dataclass(frozen=True, slots=True)
class StepTime:
    """The parts of a step in seconds. `bandwidth` is the time to read the weights, `compute` what multiplying adds."""

    bandwidth: float = 0.0
    compute: float = 0.0
    attention: float = 0.0
    overhead: float = 0.0
    link: float = 0.0
    disk: float = 0.0

    def __add__(self, other: StepTime) -> StepTime:
        return StepTime(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(StepTime)))

    @property
    def total(self) -> float:
        return self.bandwidth + self.compute + self.attention + self.overhead + self.link + self.disk


@dataclass(frozen=True, slots=True)
class Share:
    """What a device holds: a range of `layers`, the routed experts of the layers in `experts`, perhaps the head.

    The local CPU may hold the experts of a layer whose other parts are on a GPU."""

    device: Device
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    head: bool

    @property
    def is_local_cpu(self) -> bool:
        return is_local_cpu(self.device)


def is_local_cpu(device: Device) -> bool:
    """Whether `device` is this machine's CPU: it embeds and samples tokens and may hold the experts of GPU layers."""
    return device.kind == "cpu" and not device.node


@dataclass(frozen=True)
class LatencyModel:
    """The time of each part of a step of `rows` tokens, each with `attended` earlier tokens in the cache."""

    card: ModelCard
    machine: Machine
    rows: int
    attended: int
    kv_type: str = "f16"
    kv_full: bool = False
    model: ModelParts = field(init=False, repr=False)
    caches: CacheShape = field(init=False, repr=False)
    passes: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", parts(self.card))
        object.__setattr__(self, "caches", cache_shape(self.card))
        object.__setattr__(self, "passes", passes(self.card))

    def layer(self, device: Device, number: int) -> StepTime:
        """The time of a layer without its routed experts."""
        speed = device.speed
        weights = self._weights(device, self.model.layers[number].always, self.rows)
        state = self.rows * self.caches.layers[number].state * 2 * _FLOAT  # read, and written
        once = weights + StepTime(
            bandwidth=state / speed.bandwidth,
            attention=speed.attention_seconds(self.rows * self._attention(number), self.kv_type),
            overhead=speed.per_layer + speed.per_row * self.rows,
        )
        return sum([once] * (self.passes - 1), once)

    def _attention(self, number: int) -> float:
        """The multiply-adds of one token with the cache of a layer. Where an indexer chooses, all tokens count, because
        the engine masks the others."""
        cache, card, attended = self.caches.layers[number], self.card, self.attended
        heads = card.kv_heads_per_layer[number] if number < len(card.kv_heads_per_layer) else card.kv_heads
        if not heads or (cache.state and not cache.keys):
            return 0.0
        seen = min(attended, self.caches.window) if cache.windowed and not self.kv_full else attended
        each = card.heads_in(number) * sum(head_lengths(card, narrow=cache.windowed))
        compressed = sum(attended / tokens * each for _, tokens in cache.rows)
        scores = attended * metadata_number(card, "attention.indexer.head_count") * cache.index_keys
        return seen * each + compressed + scores

    def experts(self, device: Device, number: int) -> StepTime:
        """The time of a layer's routed experts: each used expert is read once for all tokens that chose it."""
        routed = self.model.layers[number].routed
        if not routed:
            return StepTime()
        met = experts_met(self.card, self.rows, number) or 1.0
        each = self.rows * self.card.experts_used_in(number) / (self.card.experts * met)
        found = {name: round(size * met) for name, size in routed.items()}
        whole = device.speed.experts_seconds(found, each)
        return _read_and_computed(device, found, whole) + StepTime(overhead=device.speed.per_expert_layer * self.rows)

    def crossing(self, device: Device, number: int) -> StepTime:
        """The transfers between `device` and the local CPU that holds the layer's routed experts."""
        return self._trip(device, self._activations) if self.model.layers[number].routed else StepTime()

    def head(self, device: Device) -> StepTime:
        """The time of the output matrix and of sampling, which the local CPU does: logits travel, not activations."""
        times = self._weights(device, self.model.output.always, self.rows)
        link = None if is_local_cpu(device) else self._link(device)
        more = self.rows * _FLOAT * max(0, self.card.vocab_size - self.card.embedding_length)
        draw = self.machine.draw_seconds(self.card.vocab_size, self.rows)
        return times + StepTime(overhead=draw, link=more / link.bandwidth if link else 0.0)

    def visit(self, device: Device) -> StepTime:
        """The transfers to and from a device that holds anything."""
        return StepTime() if is_local_cpu(device) else self._trip(device, self._activations)

    @cached_property
    def met(self) -> float:
        """The share of routed experts that a step uses."""
        return experts_met(self.card, self.rows) or 1.0

    def reload(self, routed: float, always: float) -> StepTime:
        """The time to read weights that do not fit into memory: `routed` bytes of experts and `always` of the rest.

        Raises UsageError if the disk's speed is unknown."""
        if routed + always > 0 and not self.machine.disk_read:
            raise UsageError("weights must be read from the disk, but the speed of the disk is unknown")
        return StepTime(disk=(routed * self.met + always) / self.machine.disk_read if routed + always > 0 else 0.0)

    def of(self, shares: Sequence[Share], sizes: PartSizes) -> tuple[StepTime, ...]:
        """The time of each share. Weights that do not fit into this machine's memory come from the disk."""
        return tuple(self._of(share, shares, sizes) for share in shares)

    def _of(self, share: Share, shares: Sequence[Share], sizes: PartSizes) -> StepTime:
        times = self.visit(share.device)
        for number in share.layers:
            times += self.layer(share.device, number)
            if number not in share.experts:
                times += self.crossing(share.device, number)
        for number in share.experts:
            times += self.experts(share.device, number)
        if share.head:
            times += self.head(share.device)
        if share.is_local_cpu:
            excess = max(0, held_bytes(share, sizes) - share.device.memory_free)
            routed = min(excess, sum(sizes.experts[number] for number in share.experts))
            times += self.reload(routed, excess - routed)
        return times

    def load_seconds(self, weights: Sequence[tuple[Device, int]]) -> float:
        """The time to read the file and to send each device except the local CPU its bytes."""
        disk = sum(size for _, size in weights) / self.machine.disk_read if self.machine.disk_read else 0.0
        links = [(self._link(device), size) for device, size in weights if not is_local_cpu(device)]
        return disk + sum(size / link.bandwidth for link, size in links if link)

    @property
    def _activations(self) -> int:
        return self.rows * self.card.embedding_length * _FLOAT

    def _trip(self, device: Device, size: int) -> StepTime:
        link = self._link(device)
        return StepTime(link=link.round_trip + 2 * size / link.bandwidth) if link else StepTime()

    def _link(self, device: Device) -> Link | None:
        """The link to a node or to a GPU of this machine; None if it takes no time (a GPU without PCIe)."""
        wanted = device.node or device.name
        found = next((link for link in self.machine.links if link.to == wanted), None)
        if found is None and device.node:
            raise UsageError(f"{self.machine.name}: no link to {device.node}", hint="add it under links")
        return found

    def _weights(self, device: Device, weights: Mapping[str, int], columns: float) -> StepTime:
        return _read_and_computed(device, weights, device.speed.weights_seconds(weights, columns))


def _read_and_computed(device: Device, weights: Mapping[str, int], whole: float) -> StepTime:
    read = min(whole, sum(weights.values()) / device.speed.bandwidth)
    return StepTime(bandwidth=read, compute=whole - read)


def held_bytes(share: Share, sizes: PartSizes) -> int:
    """The most memory that a share takes: buffers are counted as if the device computed every part of a layer."""
    use, head = fixed_bytes(share.device, sizes)
    own = sum(sizes.layers[n] + sizes.kv_cache[n] for n in share.layers) + sum(sizes.experts[n] for n in share.experts)
    return use + own + (head if share.head else 0)


def fits_local_memory(share: Share, sizes: PartSizes, *, from_disk: bool) -> bool:
    """Whether the share fits this machine's memory. With `from_disk` only caches and buffers must fit."""
    excess = held_bytes(share, sizes) - share.device.memory_free
    weights = sizes.need(share.layers, share.experts, head=share.head, local=True).weights
    return excess <= (weights if from_disk else 0)


def fixed_bytes(device: Device, sizes: PartSizes) -> tuple[int, int]:
    """Bytes that a device takes if it holds anything, and the further bytes of the head."""
    buffer = max(sizes.attention_buffer, sizes.expert_buffer if any(sizes.experts) else 0)
    head = sizes.head + max(0, sizes.logits_buffer - buffer)
    if not is_local_cpu(device):
        return buffer, head
    return buffer + sizes.embedding + sizes.sampling_buffer + sizes.program, head - sizes.shared
