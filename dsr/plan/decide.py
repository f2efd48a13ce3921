"""Plans a model on a machine: where its layers go, with which context, and which alternatives exist. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dsr.hub.select_files import smaller_model
from dsr.loading.context import SHORTEST_CONTEXT, context_for_machine
from dsr.loading.from_disk import DiskPlan, fit
from dsr.loading.options import LoadOptions
from dsr.loading.place import PlaceFunction, find_placement, placement_request
from dsr.loading.predict import past_correction
from dsr.loading.reach import settled
from dsr.models.reach import farthest, reach_of
from dsr.plan.from_disk import DiskSpeed, disk_speed
from dsr.plan.planned_model import PlannedModel
from dsr.store.predictions import Correction, PredictedRun
from runtime.base.errors import DoesNotFit
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard, parts
from runtime.gguf.rope import Yarn
from runtime.machine.machine import Machine
from runtime.placement.compared import estimate_note
from runtime.placement.explain import speed
from runtime.placement.memory import host_cache, need
from runtime.placement.place import Assignment, Placement, place

_PROMPT = 512  # tokens, for the time to the first token
_WORTH_NAMING = 1.05  # an alternative must be this many times as fast
_SMALLER_CACHE = "q8_0"


@dataclass(frozen=True, slots=True)
class DevicePart:
    """What one device holds, in bytes; `share` of the time of one token; `assumed`: its speed is not measured."""

    name: str
    node: str
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    head: bool
    weights: int
    expert_weights: int
    kv_cache: int
    compute: int
    share: float
    assumed: bool = False

    @property
    def bytes(self) -> int:
        return self.weights + self.expert_weights + self.kv_cache + self.compute


@dataclass(frozen=True, slots=True)
class Plan:
    """A model on a machine. The speeds of `machine` include the `correction` by past runs. `yarn` scales positions.

    A model that does not fit has its speed in `from_disk`; its `placement` is that of a machine with enough memory."""

    model: PlannedModel
    machine: Machine
    placement: Placement
    devices: tuple[DevicePart, ...]
    alternatives: tuple[str, ...]
    correction: Correction
    yarn: Yarn | None = None
    from_disk: DiskSpeed | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the placement, and the notes on its memory and speeds."""
        decided = self.placement.reasons if self.from_disk is None else self.from_disk.reasons
        notes = [estimate_note(self.model.card)]
        if self.idle_texts:
            notes.append(f"dsr serve keeps up to {self.idle_texts} of idle texts in addition")
        return (*decided, *filter(None, notes), *speed_notes(self.machine, self.correction))

    @property
    def flags(self) -> tuple[str, ...]:
        """The same plan as options of llama.cpp's programs."""
        if self.yarn is None:
            return self.placement.flags
        scaling = ("--rope-scaling yarn", f"--rope-scale {self.yarn.factor:g}", f"--yarn-orig-ctx {self.yarn.original}")
        return (*self.placement.flags, *scaling)

    @property
    def memory(self) -> ByteCount:
        return ByteCount(sum(each.bytes for each in self.devices))

    @property
    def idle_texts(self) -> ByteCount:
        """The most bytes of host memory that `dsr serve` fills in addition, with texts that left the KV cache."""
        left = self.machine.usable().memory_free - self.memory if self.from_disk is None else 0
        return host_cache(sum(each.kv_cache for each in self.devices), left)

    @property
    def tokens_per_second(self) -> float:
        """The speed of all samples together."""
        return self.placement.tokens_per_second if self.from_disk is None else self.from_disk.step.tokens_per_second

    @property
    def full_tokens_per_second(self) -> float:
        """The speed with a full context, when every token attends to all of it."""
        placement, request = self.placement, self.placement.request
        further = request.context // request.samples - request.attended
        more = request.samples * further * placement.attention_seconds
        return request.samples / (request.samples / self.tokens_per_second + more)

    @property
    def first_token_seconds(self) -> float:
        """The time to the first token after a prompt of 512 tokens."""
        if self.from_disk is not None:
            return self.from_disk.first_token_seconds
        return self.placement.first_token_seconds(_PROMPT)

    @property
    def load_seconds(self) -> float:
        """The time to read the weights that are in memory before the first token."""
        whole = self.model.card.weights_size
        on_disk = 0 if self.from_disk is None else self.from_disk.plan.on_disk
        return self.placement.load_seconds * (1 - on_disk / whole if whole else 1)

    @property
    def binding(self) -> str:
        """The part of a step that takes the most time."""
        return self.placement.bottleneck if self.from_disk is None else self.from_disk.binding

    def json(self) -> dict[str, Any]:
        request = self.placement.request
        return {
            "model": self.model.reference,
            "quant": self.model.quant,
            "machine": self.machine.name,
            "origin": self.model.origin,
            "fits": self.from_disk is None,
            "memory_bytes": int(self.memory),
            "tokens_per_second": round(self.tokens_per_second, 3),
            "full_tokens_per_second": round(self.full_tokens_per_second, 3),
            "first_token_seconds": round(self.first_token_seconds, 4),
            "load_seconds": round(self.load_seconds, 4),
            "devices": [
                {
                    "name": each.name,
                    "node": each.node,
                    "layers": list(each.layers),
                    "experts": list(each.experts),
                    "head": each.head,
                    "bytes": each.bytes,
                    "weights": each.weights,
                    "expert_weights": each.expert_weights,
                    "kv_cache": each.kv_cache,
                    "compute": each.compute,
                    "share": round(each.share, 4),
                    "assumed": each.assumed,
                }
                for each in self.devices
            ],
            "context": request.context,
            "trained_context": self.model.card.context_length,
            "reachable_context": reach_of(self.model.card, self.yarn or farthest(self.model.card, self.model.entry)),
            "yarn_factor": self.yarn.factor if self.yarn else None,
            "samples": request.samples,
            "kv_type": request.kv_type,
            "kv_full": request.kv_full,
            "binding": self.binding,
            "from_disk": self.from_disk.json() if self.from_disk else None,
            "correction": asdict(self.correction) if self.correction.runs else None,
            "reasons": list(self.reasons),
            "alternatives": list(self.alternatives),
            "flags": list(self.flags),
        }


def speed_notes(machine: Machine, correction: Correction) -> list[str]:
    """Notes on predicted speeds: assumptions in place of measurements, and the correction by past runs."""
    notes = []
    for device in machine.devices:
        if device.speed.assumed and device.node:
            notes.append(f"the speed of {device.node} is assumed, not measured")
        elif device.speed.assumed and device.kind == "cpu":
            notes.append(f"the speeds of {device.name} are assumed, not measured")
        elif device.speed.assumed:
            notes.append(f"the speeds of {device.name} and of the link to it are assumed from its name, not measured")
    return [*notes, correction.describe()] if correction.runs else notes


def decide(
    model: PlannedModel,
    machine: Machine,
    options: LoadOptions,
    place: PlaceFunction = place,
    *,
    past: Sequence[PredictedRun] = (),
    system: str = "linux",
) -> Plan:
    """The fastest placement of the model on the machine, which runs `system`, with alternatives.

    Raises DoesNotFit with a hint that names what fits.
    """
    options = settled(options, model.card, model.entry)
    try:
        plan = plan_placement(model, machine, options, place, past=past, system=system)
    except DoesNotFit as error:
        raise _with_fitting_hint(error, model, machine, options) from error
    if plan.from_disk is not None:
        return replace(plan, alternatives=_instead_of_the_disk(model, machine, plan.from_disk))
    more = _alternatives(model.card, plan.machine, plan.placement, place)
    return replace(plan, alternatives=(*plan.alternatives, *more))


def plan_placement(
    model: PlannedModel,
    machine: Machine,
    options: LoadOptions,
    place: PlaceFunction = place,
    *,
    past: Sequence[PredictedRun] = (),
    system: str = "linux",
) -> Plan:
    """The fastest placement without alternatives, at speeds corrected by `past` runs. Raises DoesNotFit.

    A model that is larger than the memory of a machine without GPUs and nodes runs from the disk.

    `options` are settled for the model (`dsr.loading.reach.settled`).
    """
    correction = past_correction(machine, past, model.reference, options.slots, model.card.weights_size)
    machine = machine.corrected(correction.factor)
    if (plan := _disk_plan(model.card, machine, options, system)) is not None:
        return _from_disk(model, machine, plan, options, place, correction)
    placement = _placement(model.card, machine, options, place)
    devices = _device_parts(model.card, placement)
    return Plan(model, machine, placement, devices, placement.alternatives, correction, options.yarn)


def _disk_plan(card: ModelCard, machine: Machine, options: LoadOptions, system: str) -> DiskPlan | None:
    """How the model runs from the disk; None if it fits, or cannot."""
    if len(machine.devices) > 1 or not machine.disk_read:
        return None
    try:
        return fit(card, machine.usable().memory_free, options, system=system).from_disk
    except DoesNotFit:  # the placement says what would fit
        return None


def _from_disk(
    model: PlannedModel,
    machine: Machine,
    plan: DiskPlan,
    options: LoadOptions,
    place: PlaceFunction,
    correction: Correction,
) -> Plan:
    request = placement_request(plan.context, options.slots, options.kv_type, kv_full=options.kv_full)
    placement = place(model.card, machine.with_any_memory(), request)
    memory = machine.usable().memory_free
    profiles = model.profiles if plan.routed else {}
    speed = disk_speed(plan, placement, machine.disk_read, memory, profiles)
    [held] = _device_parts(model.card, placement)
    weights = held.weights + held.expert_weights - plan.on_disk
    compute = plan.resident + plan.opened.memory - weights - held.kv_cache - plan.memory
    held = replace(held, weights=weights, expert_weights=plan.memory, compute=compute)
    return Plan(model, machine, placement, (held,), (), correction, options.yarn, speed)


def _placement(card: ModelCard, machine: Machine, options: LoadOptions, place: PlaceFunction) -> Placement:
    """With the user's context, or the first that fits from the one `dsr chat` would take downwards."""
    context = context_for_machine(card, machine, options)
    request = placement_request(context, options.slots, options.kv_type, kv_full=options.kv_full)
    gives_way = options.context is None or options.usual_context is not None
    return find_placement(card, machine, request, shorten=gives_way, place=place)


def _device_parts(card: ModelCard, placement: Placement) -> tuple[DevicePart, ...]:
    layers = parts(card).layers
    whole = sum(each.seconds for each in placement.assignments) or 1.0

    def share(each: Assignment) -> DevicePart:
        experts = sum(sum(layers[number].routed.values()) for number in each.experts)
        return DevicePart(
            name=each.device.name,
            node=each.device.node,
            layers=each.layers,
            experts=each.experts,
            head=each.head,
            weights=each.weights - experts,
            expert_weights=experts,
            kv_cache=each.kv_cache,
            compute=each.compute,
            share=each.seconds / whole,
            assumed=each.device.speed.assumed,
        )

    return tuple(map(share, placement.assignments))


def _alternatives(card: ModelCard, machine: Machine, placement: Placement, place: PlaceFunction) -> tuple[str, ...]:
    """Options with a smaller KV cache that would be clearly faster."""
    wanted, found = placement.request, []
    shorter = wanted.context // 4
    ideas = []
    if wanted.kv_type == "f16":
        ideas.append((f"--kv-type {_SMALLER_CACHE}", replace(wanted, kv_type=_SMALLER_CACHE)))
    if shorter >= SHORTEST_CONTEXT * wanted.samples:
        ideas.append((f"--ctx-size {shorter}", replace(wanted, context=shorter)))
    for option, idea in ideas:
        try:
            other = place(card, machine.usable(), idea)
        except DoesNotFit:
            continue
        if other.tokens_per_second > placement.tokens_per_second * _WORTH_NAMING:
            saved = ByteCount(_memory(placement) - _memory(other))
            found.append(f"{option}: {speed(other.tokens_per_second)}, with {saved} less memory")
    return tuple(found)


def _instead_of_the_disk(model: PlannedModel, machine: Machine, disk: DiskSpeed) -> tuple[str, ...]:
    """A smaller quantization that fits."""
    rest = disk.plan.resident - (model.card.weights_size - disk.plan.on_disk)
    room = machine.usable().memory_free - rest
    fitting = [each for each in model.choices if each.size < model.card.weights_size and each.size <= room]
    return tuple(f"{each.quant} of the same model ({each.size}) fits into memory" for each in fitting[-1:])


def _memory(placement: Placement) -> int:
    return sum(each.weights + each.kv_cache + each.compute for each in placement.assignments)


def _with_fitting_hint(error: DoesNotFit, model: PlannedModel, machine: Machine, options: LoadOptions) -> DoesNotFit:
    """The error with a hint: a smaller quantization of the same model, or a smaller model."""
    card = model.card
    needed = need(card, options.context or SHORTEST_CONTEXT, options.slots, options.kv_type, kv_full=options.kv_full)
    free = machine.usable().memory_free
    room = free - (needed.total - needed.weights)
    fitting = [each for each in model.choices if each.size < card.weights_size and each.size <= room]
    ways = [error.hint] if error.hint else []
    if fitting:
        ways.append(f"{fitting[-1].quant} of the same model ({fitting[-1].size}) should fit")
    elif (entry := smaller_model(model.entry, free)) and entry.parameters < card.parameters:
        ways.append(f"dsr plan {entry.name} should fit: {entry.describe()}")
    return DoesNotFit(f"{model.name}: {error.message}", hint="; ".join(ways) or None, missing=error.missing)
