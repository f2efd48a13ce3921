"""Decides whether a model that does not fit into memory runs from the disk, and how the memory is divided. Pure.

Every token needs attention, shared experts, routers, embeddings, caches and buffers: they stay in memory. The rest of
the memory holds the routed experts that were used most; the others are read when a router chooses them. A dense model
reads some of its layers for each token.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsr.loading.context import ENOUGH_CONTEXT, SHORTEST_CONTEXT, context_for_memory
from dsr.loading.options import OFF, LoadOptions
from dsr.models.reach import reach_of
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.types import ByteCount
from runtime.from_disk.forecast import DiskLayer, Forecast, forecast, smallest_memory
from runtime.from_disk.units import FromDisk, Units, units_of
from runtime.gguf.card import ModelCard, layer_count
from runtime.machine.host import Host
from runtime.machine.machine import Machine, usable
from runtime.placement import memory

PAGE = 4096  # bytes; each slice of an expert has whole pages, and one more where it begins within a page
Picks = Mapping[int, Sequence[float]]  # how often a text chose each expert, by layer

# The context that nobody asked for takes at most this part of the memory that it shares with the weights from the disk.
_MOST_FOR_CONTEXT = 1 / 8
NOT_WITH_OTHERS = "dsr cannot run a model from the disk with nodes or a GPU yet: the system maps the file, slowly"
_ANY = 1 << 60  # bytes: more than any model


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """How a model that does not fit runs from the disk. Sizes in bytes, `context` in tokens.

    `resident`: weights of every token, caches, buffers, program. `opened.memory`: for the weights that come from the
    disk, `on_disk` in all; `smallest`: the least that is enough. `reach`: the longest context of the model.
    `asked`: somebody asked for this context.
    """

    opened: FromDisk
    layers: tuple[DiskLayer, ...]
    on_disk: ByteCount
    resident: ByteCount
    smallest: ByteCount
    context: int
    reach: int
    asked: bool

    @property
    def memory(self) -> ByteCount:
        return ByteCount(self.opened.memory)

    @property
    def routed(self) -> bool:
        """Whether routers choose what is read: a mixture of experts."""
        return not self.opened.layers

    @property
    def is_shortened(self) -> bool:
        """Whether the context is shorter than the model's, though nobody asked for that."""
        return not self.asked and self.context < self.reach

    def with_picks(self, picks: Picks) -> DiskPlan:
        """The same for a text that chose each expert as often as `picks` say, for the layers on the disk in order."""
        layers = (replace(each, picks=tuple(picks[n])) for each, n in zip(self.layers, sorted(picks), strict=True))
        return replace(self, layers=tuple(layers))

    def seeded(self, profiles: Mapping[str, Picks]) -> DiskPlan:
        """The same with a cache that begins with the experts that the profiled tasks chose most, all tasks alike."""
        if not self.routed or not profiles:
            return self
        each = [[_shares(picks[n]) for n in sorted(picks)] for picks in profiles.values()]
        seed = (sum(shares) / len(each) for layer in zip(*each, strict=True) for shares in zip(*layer, strict=True))
        return replace(self, opened=replace(self.opened, seed=tuple(seed)))

    def forecast(self, disk_read: float, compute_seconds: float, tokens: int = 1) -> Forecast:
        """A step of `tokens` tokens together. `compute_seconds`: of the step with all weights in memory.

        Raises UsageError if the speed of the disk is not known."""
        if not disk_read:
            raise UsageError("the model runs from the disk, but the speed of the disk is unknown")
        return forecast(self.layers, self.memory, disk_read, compute_seconds, tokens)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each decision."""
        parts = "attention, shared experts, caches and buffers" if self.routed else "other layers, caches and buffers"
        kept = "those that were used most" if self.routed else "those that compute next"
        found = [
            f"{self.resident} stay in memory: {parts}",
            f"{self.on_disk} of {self.streamed} stay on the disk, and {self.memory} of memory hold {kept}; "
            f"{self.smallest} is the least that is enough",
        ]
        if self.is_shortened:
            found.append(
                f"the context has {self.context} of {self.reach} tokens, so that more weights stay in memory; "
                "--ctx-size changes it"
            )
        return tuple(found)

    def line(self) -> str:
        """The plan in one line, for a person who waits for the model to load."""
        short = f"; context {self.context} of {self.reach} tokens" if self.is_shortened else ""
        return (
            f"runs from the disk: {self.resident} stay in memory, and {self.memory} hold a part of "
            f"{self.on_disk} of {self.streamed}{short}"
        )

    @property
    def streamed(self) -> str:
        """What stays on the disk."""
        return "experts" if self.routed else f"{len(self.layers)} layers"


@dataclass(frozen=True, slots=True)
class Fit:
    """The `context` in tokens that a model is opened with; `from_disk` is None for a model that fits, or is mapped.
    `why_not`: why a model that does not fit is mapped all the same."""

    context: int
    from_disk: DiskPlan | None = None
    why_not: str = ""


def fit(card: ModelCard, available: ByteCount, options: LoadOptions, *, system: str = sys.platform) -> Fit:
    """How the model is opened where it may take `available` bytes of memory. `options` are settled for it.

    Raises DoesNotFit where not even the weights of every token fit, UsageError for an impossible type of the cache.
    """
    if options.from_disk == OFF or not _is_too_large(card, available, options):
        return Fit(_plain_context(card, available, options))
    if why := why_not(options, system):
        try:
            return Fit(context_for_memory(card, available, options), why_not=why)
        except DoesNotFit as error:
            raise DoesNotFit(error.message, hint=f"{error.hint}; {why}", missing=error.missing) from None
    if _is_asked(options):
        context_for_memory(card, available, options)  # caches and buffers fit, or its error says what would
    try:
        plan = disk_plan(card, available, options)
    except DoesNotFit:
        if _is_asked(options) or not _largest(card, available, options):
            raise
        return Fit(context_for_memory(card, available, options))  # a few tokens of context, with all weights in memory
    return Fit(plan.context, plan)


def fit_on_host(card: ModelCard, host: Host, options: LoadOptions) -> Fit:
    """`fit` in the memory that a model may take on this computer."""
    return fit(card, usable(host.memory_available), options)


def with_all_weights(machine: Machine) -> Machine:
    """The same machine with memory for any model, so that only computing takes time."""
    home, *others = machine.devices
    return replace(machine, devices=(replace(home, memory_free=_ANY, memory_total=_ANY), *others))


def why_not(options: LoadOptions, system: str = sys.platform) -> str:
    """Why a model that does not fit is not run from the disk; "" where it can be."""
    if not system.startswith("linux"):
        return "dsr reads weights from the disk itself on Linux only; here the system does it, slowly"
    if options.nodes:
        return NOT_WITH_OTHERS
    for what, given in (("--draft mtp", options.mtp), ("--lora", options.lora)):
        if given:
            return f"dsr cannot run a model from the disk with {what} yet: the system maps the file, slowly"
    return ""


def disk_plan(card: ModelCard, available: ByteCount, options: LoadOptions) -> DiskPlan:
    """How the memory is divided for a model that does not fit. Raises DoesNotFit if every token needs too much."""
    reach = reach_of(card, options.yarn)
    asked = _is_asked(options)
    contexts = [options.context] if asked and options.context else _contexts(min(options.context or reach, reach))
    units = units_of(card)
    for context in contexts:
        need = _need(card, context, options)
        layers = () if units.stacks else _layers_on_disk(card, need, available)
        streamed = units_of(card, layers) if layers else units
        if not streamed.stacks:
            raise _too_large(card, need, need.total, available, contexts[-1], asked=asked)
        held = disk_layers(card, streamed)
        resident, smallest = need.total - streamed.bytes, smallest_memory(held)
        room = available - resident
        if asked or context == contexts[-1] or need.kv_cache <= (room + need.kv_cache) * _MOST_FOR_CONTEXT:
            break
    if room < smallest:
        raise _too_large(card, need, resident + smallest, available, contexts[-1], asked=asked)
    return DiskPlan(
        opened=FromDisk(min(room, sum(each.size * each.experts for each in held)), layers),
        layers=held,
        on_disk=ByteCount(streamed.bytes),
        resident=ByteCount(resident),
        smallest=ByteCount(smallest),
        context=context,
        reach=reach,
        asked=asked,
    )


def disk_layers(card: ModelCard, units: Units) -> tuple[DiskLayer, ...]:
    """The layers of `units` as the forecast sees them."""
    sizes = [0] * len(units.layers)
    for stack in units.stacks:
        sizes[stack.index] += (-(-stack.size // PAGE) + 1) * PAGE
    if not units.routed:
        return tuple(map(DiskLayer, sizes))
    layers = zip(units.layers, sizes, strict=True)
    return tuple(DiskLayer(size, units.experts, card.experts_used_in(layer)) for layer, size in layers)


def _shares(picks: Sequence[float]) -> list[float]:
    """Each expert's share of the picks of its layer."""
    total = sum(picks)
    return [each / total if total else 1 / len(picks) for each in picks]


def _is_too_large(card: ModelCard, available: int, options: LoadOptions) -> bool:
    """Whether the model does not fit with the context that is asked for; else with any useful one."""
    reach = reach_of(card, options.yarn)
    if _is_asked(options) and options.context:
        return _need(card, options.context, options).total > available
    return _largest(card, available, options) < min(reach, SHORTEST_CONTEXT)


def _is_asked(options: LoadOptions) -> bool:
    """Whether somebody asked for this context; the usual one of the settings may become shorter."""
    return options.context is not None and options.usual_context is None


def _plain_context(card: ModelCard, available: ByteCount, options: LoadOptions) -> int:
    """The context of a model that fits, or is mapped. The usual one gives way where it does not fit."""
    if options.from_disk != OFF and options.usual_context is not None and options.context is not None:
        most = _largest(card, available, options)
        if min(SHORTEST_CONTEXT, options.context) <= most < options.context:
            return most
    return context_for_memory(card, available, options)


def _largest(card: ModelCard, available: int, options: LoadOptions) -> int:
    return memory.largest_context(lambda each: _need(card, each, options), available, reach_of(card, options.yarn))


def _need(card: ModelCard, context: int, options: LoadOptions) -> memory.MemoryNeed:
    return memory.need(
        card, context, options.slots, options.kv_type, options.drafted, kv_full=options.kv_full, mtp=options.mtp
    )


def _contexts(longest: int) -> list[int]:
    """The contexts to try, the longest first."""
    found = [min(longest, ENOUGH_CONTEXT)]
    while found[-1] // 2 >= SHORTEST_CONTEXT:
        found.append(found[-1] // 2)
    return found


def _layers_on_disk(card: ModelCard, need: memory.MemoryNeed, available: int) -> tuple[int, ...]:
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


def _too_large(
    card: ModelCard, need: memory.MemoryNeed, least: int, available: ByteCount, shortest: int, *, asked: bool
) -> DoesNotFit:
    ways = ["choose a smaller quantization or a smaller model"]
    if asked and shortest > SHORTEST_CONTEXT:
        ways.insert(0, f"try a shorter context, such as --ctx-size {SHORTEST_CONTEXT}")
    if asked:
        ways.append("to let the system map the file, very slowly: --from-disk off")
    from_disk = f", or {ByteCount(least)} if it runs from the disk," if least < need.total else ""
    return DoesNotFit(
        f"{card.name} needs {need.total}{from_disk} and {available} of memory is free",
        hint="; ".join(ways),
        missing=max(1, least - available),
    )
