"""Where a model goes on a machine, with what context, and what else was possible. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dsr.hub.select_files import smaller_model
from dsr.loading.context import SHORTEST_CONTEXT, context_for_machine
from dsr.loading.options import LoadOptions
from dsr.loading.place import PlaceFunction, find_placement, placement_request
from dsr.loading.predict import learnt_of
from dsr.plan.subject import Subject
from dsr.store.predictions import Correction, PredictedRun
from runtime.base.errors import DoesNotFit
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.layers import parts
from runtime.machine.machine import Machine
from runtime.placement.explain import speed
from runtime.placement.memory import need
from runtime.placement.place import Assignment, Placement, place

_PROMPT = 512  # tokens, for the time to the first token
_WORTH_SAYING = 1.05  # so many times as fast
_SMALLER_CACHE = "q8_0"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one device holds, in bytes by kind, and its part of the time of one token. How fast it is may be `assumed`:
    nobody measured it."""

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
    """`machine` is as fast as `learnt` from past runs says, not as it was measured."""

    subject: Subject
    machine: Machine
    placement: Placement
    holdings: tuple[Holding, ...]
    alternatives: tuple[str, ...]
    learnt: Correction

    @property
    def reasons(self) -> tuple[str, ...]:
        """Of the placement, and what the speeds rest on where that is not a measurement alone."""
        return (*self.placement.reasons, *speeds_in_words(self.machine, self.learnt))

    @property
    def memory(self) -> ByteCount:
        return ByteCount(sum(each.bytes for each in self.holdings))

    @property
    def full_tokens_per_second(self) -> float:
        """When the context is full: every token then looks back at all of it."""
        placement, wanted = self.placement, self.placement.request
        further = wanted.context // wanted.samples - wanted.attended
        return wanted.samples / (placement.seconds_per_step + wanted.samples * further * placement.attention_seconds)

    @property
    def first_token_seconds(self) -> float:
        """After a prompt of 512 tokens."""
        return self.placement.first_token_seconds(_PROMPT)

    def json(self) -> dict[str, Any]:
        placement, wanted = self.placement, self.placement.request
        return {
            "model": self.subject.reference,
            "quant": self.subject.quant,
            "machine": self.machine.name,
            "origin": self.subject.origin,
            "fits": True,
            "memory_bytes": int(self.memory),
            "tokens_per_second": round(placement.tokens_per_second, 3),
            "full_tokens_per_second": round(self.full_tokens_per_second, 3),
            "first_token_seconds": round(self.first_token_seconds, 4),
            "load_seconds": round(placement.load_seconds, 4),
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
                for each in self.holdings
            ],
            "context": wanted.context,
            "samples": wanted.samples,
            "kv_type": wanted.kv_type,
            "binding": placement.bottleneck,
            "correction": asdict(self.learnt) if self.learnt.runs else None,
            "reasons": list(self.reasons),
            "alternatives": list(self.alternatives),
            "flags": list(placement.flags),
        }


def speeds_in_words(machine: Machine, learnt: Correction) -> list[str]:
    """What speeds rest on beside what was measured: assumptions, and what was `learnt` from past runs."""
    said = []
    for device in machine.devices:
        if device.speed.assumed and device.node:
            said.append(f"the speed of {device.node} is assumed, not measured")
        elif device.speed.assumed:
            said.append(f"the speed of {device.name} and of the link to it is assumed from its name, not measured")
    return [*said, learnt.in_words()] if learnt.runs else said


def decide(
    subject: Subject,
    machine: Machine,
    options: LoadOptions,
    place: PlaceFunction = place,
    *,
    past: Sequence[PredictedRun] = (),
) -> Plan:
    """The fastest placement of the model on the machine, and what else was possible. Raises DoesNotFit with what would
    fit."""
    try:
        plan = placed(subject, machine, options, place, past=past)
    except DoesNotFit as error:
        raise _with_what_fits(error, subject, machine, options) from error
    more = _alternatives(subject.card, plan.machine, plan.placement, place)
    return replace(plan, alternatives=(*plan.alternatives, *more))


def placed(
    subject: Subject,
    machine: Machine,
    options: LoadOptions,
    place: PlaceFunction = place,
    *,
    past: Sequence[PredictedRun] = (),
) -> Plan:
    """The fastest placement alone, at the speeds that `past` runs make likely. Raises DoesNotFit."""
    learnt = learnt_of(machine, past, subject.reference, options.slots)
    machine = machine.corrected(learnt.factor)
    placement = _placed(subject.card, machine, options, place)
    return Plan(subject, machine, placement, _holdings(subject.card, placement), placement.alternatives, learnt)


def _placed(card: ModelCard, machine: Machine, options: LoadOptions, place: PlaceFunction) -> Placement:
    """With the user's context, or the first that fits from the one `dsr chat` would take downwards."""
    context = context_for_machine(card, machine, options)
    request = placement_request(context, options.slots, options.kv_type)
    return find_placement(card, machine, request, shorten=options.context is None, place=place)


def _holdings(card: ModelCard, placement: Placement) -> tuple[Holding, ...]:
    layers = parts(card).layers
    whole = sum(each.seconds for each in placement.assignments) or 1.0

    def share(each: Assignment) -> Holding:
        experts = sum(sum(layers[number].routed.values()) for number in each.experts)
        return Holding(
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
    """What a shorter or a smaller cache would bring, where it brings something."""
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
        if other.tokens_per_second > placement.tokens_per_second * _WORTH_SAYING:
            saved = ByteCount(_memory(placement) - _memory(other))
            found.append(f"{option}: {speed(other.tokens_per_second)}, with {saved} less memory")
    return tuple(found)


def _memory(placement: Placement) -> int:
    return sum(each.weights + each.kv_cache + each.compute for each in placement.assignments)


def _with_what_fits(error: DoesNotFit, subject: Subject, machine: Machine, options: LoadOptions) -> DoesNotFit:
    """The same error; its hint names a smaller quantization of the same model, or a smaller model."""
    card = subject.card
    needed = need(card, options.context or SHORTEST_CONTEXT, options.slots, options.kv_type)
    free = machine.usable().memory_free
    room = free - (needed.total - needed.weights)
    fitting = [each for each in subject.choices if each.size < card.weights_size and each.size <= room]
    ways = [error.hint] if error.hint else []
    if fitting:
        ways.append(f"{fitting[-1].quant} of the same model, {fitting[-1].size}, should fit")
    elif (entry := smaller_model(subject.entry, free)) and entry.parameters < card.parameters:
        ways.append(f"dsr plan {entry.name} should fit: {entry.describe()}")
    return DoesNotFit(f"{subject.name}: {error.message}", hint="; ".join(ways) or None, missing=error.missing)
