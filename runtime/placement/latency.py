"""How long a pipeline of devices takes for one step: one token of each sample. Pure.

The terms are those of Halda (arXiv 2504.08791, section 3): the weights that a token meets, the KV cache, what the disk
reloads, and the links; the engine is llama.cpp, where the devices hold ranges of layers one after the other, the
activations come home between them, and a GPU may leave the routed experts of its layers to this machine's CPU. Where
Halda counts floating-point operations, here speeds are measured by type of weight (`runtime.machine.machine.Speed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

from runtime.base.errors import UsageError
from runtime.gguf.card import ModelCard
from runtime.gguf.layers import ModelParts, experts_met, parts
from runtime.machine.machine import Device, Link, Machine
from runtime.placement.memory import Costs

_FLOAT = 4  # activations and logits travel as f32


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds. `bandwidth` is what reading the weights takes at least, `compute` what the device needs beyond that."""

    bandwidth: float = 0.0
    compute: float = 0.0
    attention: float = 0.0
    overhead: float = 0.0
    link: float = 0.0
    disk: float = 0.0

    def __add__(self, other: Terms) -> Terms:
        return Terms(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Terms)))

    @property
    def total(self) -> float:
        return self.bandwidth + self.compute + self.attention + self.overhead + self.link + self.disk


@dataclass(frozen=True, slots=True)
class Share:
    """What a device holds: a range of `layers`, the routed experts of the layers `experts`, perhaps the head. A layer
    whose experts another share has (that of this machine's CPU) is held without them."""

    device: Device
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    head: bool

    @property
    def is_home(self) -> bool:
        return is_home(self.device)


def is_home(device: Device) -> bool:
    """Whether it is this machine's own CPU, which embeds tokens, draws, and serves the others' experts."""
    return device.kind == "cpu" and not device.node


@dataclass(frozen=True)
class Latency:
    """The price of everything for a step of `rows` tokens, each of which attends to `attended` cached ones."""

    card: ModelCard
    machine: Machine
    rows: int
    attended: int
    kv_type: str = "f16"
    model: ModelParts = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", parts(self.card))

    def layer(self, device: Device, number: int) -> Terms:
        """A layer without its routed experts."""
        speed, card = device.speed, self.card
        multiply_adds = self.rows * self.attended * card.heads * (card.key_length + card.value_length)
        attends = bool(card.kv_heads_per_layer[number] if number < len(card.kv_heads_per_layer) else card.kv_heads)
        return self._weights(device, self.model.layers[number].always, self.rows) + Terms(
            attention=speed.attention_seconds(multiply_adds, self.kv_type) if attends else 0.0,
            overhead=speed.per_layer + speed.per_row * self.rows,
        )

    def experts(self, device: Device, number: int) -> Terms:
        """The routed experts of a layer: each that is met is read once, for those tokens that chose it."""
        routed = self.model.layers[number].routed
        if not routed:
            return Terms()
        met = self.met
        each = self.rows * self.card.experts_used / (self.card.experts * met)
        found = {name: round(size * met) for name, size in routed.items()}
        whole = device.speed.experts_seconds(found, each)
        return _read_and_computed(device, found, whole) + Terms(overhead=device.speed.per_expert_layer * self.rows)

    def crossing(self, device: Device, number: int) -> Terms:
        """There and back for the routed experts of a layer that stay at home."""
        return self._trip(device, self._activations) if self.model.layers[number].routed else Terms()

    def head(self, device: Device) -> Terms:
        """The output, and the drawing from it at home: its logits travel there in place of the activations."""
        terms = self._weights(device, self.model.output.always, self.rows)
        link = None if is_home(device) else self._link(device)
        more = self.rows * _FLOAT * max(0, self.card.vocab_size - self.card.embedding_length)
        draw = self.machine.draw_seconds(self.card.vocab_size, self.rows)
        return terms + Terms(overhead=draw, link=more / link.bandwidth if link else 0.0)

    def visit(self, device: Device) -> Terms:
        """What is paid once for a device that holds anything at all."""
        return Terms() if is_home(device) else self._trip(device, self._activations)

    @cached_property
    def met(self) -> float:
        """The share of routed experts that a step meets."""
        return experts_met(self.card, self.rows) or 1.0

    def reload(self, routed: float, always: float) -> Terms:
        """So many bytes too many in memory: rarely used experts give way first, and are read when they are met.
        Where the disk's speed is not known, nothing can be said."""
        if routed + always > 0 and not self.machine.disk_read:
            raise UsageError("what does not fit is read from the disk, and how fast that is is not known")
        return Terms(disk=(routed * self.met + always) / self.machine.disk_read if routed + always > 0 else 0.0)

    def of(self, shares: Sequence[Share], costs: Costs) -> tuple[Terms, ...]:
        """The seconds of each share. What this machine's memory cannot hold comes from the disk."""
        return tuple(self._of(share, shares, costs) for share in shares)

    def _of(self, share: Share, shares: Sequence[Share], costs: Costs) -> Terms:
        terms = self.visit(share.device)
        for number in share.layers:
            terms += self.layer(share.device, number)
            if number not in share.experts:
                terms += self.crossing(share.device, number)
        for number in share.experts:
            terms += self.experts(share.device, number)
        if share.head:
            terms += self.head(share.device)
        if share.is_home:
            excess = max(0, held_bytes(share, costs) - share.device.memory_free)
            routed = min(excess, sum(costs.experts[number] for number in share.experts))
            terms += self.reload(routed, excess - routed)
        return terms

    def load_seconds(self, weights: Sequence[tuple[Device, int]]) -> float:
        """To read a file once, and to send each device but the CPU its bytes."""
        disk = sum(size for _, size in weights) / self.machine.disk_read if self.machine.disk_read else 0.0
        links = [(self._link(device), size) for device, size in weights if not is_home(device)]
        return disk + sum(size / link.bandwidth for link, size in links if link)

    @property
    def _activations(self) -> int:
        return self.rows * self.card.embedding_length * _FLOAT

    def _trip(self, device: Device, size: int) -> Terms:
        link = self._link(device)
        return Terms(link=link.round_trip + 2 * size / link.bandwidth) if link else Terms()

    def _link(self, device: Device) -> Link | None:
        """To a node, or to a GPU of this machine; None where it costs nothing worth counting (a GPU without PCIe)."""
        wanted = device.node or device.name
        found = next((link for link in self.machine.links if link.to == wanted), None)
        if found is None and device.node:
            raise UsageError(f"{self.machine.name}: no link to {device.node}", hint="add it under links")
        return found

    def _weights(self, device: Device, weights: Mapping[str, int], columns: float) -> Terms:
        return _read_and_computed(device, weights, device.speed.weights_seconds(weights, columns))


def _read_and_computed(device: Device, weights: Mapping[str, int], whole: float) -> Terms:
    read = min(whole, sum(weights.values()) / device.speed.bandwidth)
    return Terms(bandwidth=read, compute=whole - read)


def held_bytes(share: Share, costs: Costs) -> int:
    """Memory that a share takes at most: its working buffers are counted as if it computed every part of a layer."""
    use, head = fixed_bytes(share.device, costs)
    own = sum(costs.layers[n] + costs.kv_cache[n] for n in share.layers) + sum(costs.experts[n] for n in share.experts)
    return use + own + (head if share.head else 0)


def fits_home(share: Share, costs: Costs, *, from_disk: bool) -> bool:
    """Whether this machine's memory is enough; with a disk to read weights from, for all that is no weights."""
    excess = held_bytes(share, costs) - share.device.memory_free
    weights = costs.need(share.layers, share.experts, head=share.head, home=True).weights
    return excess <= (weights if from_disk else 0)


def fixed_bytes(device: Device, costs: Costs) -> tuple[int, int]:
    """What a device takes once it holds anything, and what the head takes more."""
    buffer = max(costs.attending, costs.routing if any(costs.experts) else 0)
    head = costs.head + max(0, costs.logits - buffer)
    if not is_home(device):
        return buffer, head
    return buffer + costs.embedding + costs.drawing + costs.program, head - (costs.embedding if costs.tied else 0)
