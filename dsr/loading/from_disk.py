"""Decides whether a model that does not fit into memory runs from the disk, and how the memory is divided. Pure.

Every token needs attention, shared experts, routers, embeddings, caches and buffers: they stay in memory. The rest of
the memory holds the most used routed experts; the others are read when a router chooses them. A dense model
reads some of its layers for each token.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsr.loading.context import SHORTEST_CONTEXT, context_for_memory
from dsr.loading.disk_layers import disk_layers, layers_to_leave
from dsr.loading.options import OFF, LoadOptions
from dsr.models.reach import DEFAULT_CONTEXT, reach_of
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.types import ByteCount, counted
from runtime.engine.backend import ROWS
from runtime.from_disk.forecast import DiskLayer, Forecast, forecast, smallest_memory
from runtime.from_disk.passes import MOST_ROWS, most_tokens
from runtime.from_disk.units import FromDisk, Units, units_of
from runtime.gguf.card import ModelCard
from runtime.machine.host import Host
from runtime.machine.machine import free_for, usable
from runtime.placement import buffers, memory

Picks = Mapping[int, Sequence[float]]  # how often a text chose each expert, by layer

# The context that nobody asked for takes at most this part of the memory that it shares with the weights from the disk.
_MOST_FOR_CONTEXT = 1 / 8
# Longer passes make these parts of memory larger for good: windows of the KV cache, and what the kernels convert. That
# may take at most this part of the memory for weights from the disk.
_MOST_FOR_ROWS = 1 / 32
_STEP = 512  # tokens: the lengths of a pass to choose from are its multiples
_FEW = 32  # tokens of a pass with small working buffers, which grow evenly from there
# This part of the free memory stays free while the model runs: half of what `usable` leaves. Weights take the other
# half as long as no other program does.
_SPARE = 20
NOT_WITH_OTHERS = "dsr cannot run a model from the disk with nodes or a GPU yet: the system maps the file, slowly"


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """How a model that does not fit runs from the disk. Sizes in bytes, `context` in tokens.

    `resident`: weights of every token, caches, program. `opened.memory`: for the weights that come from the disk,
    `on_disk` in all, and for the working buffers of a pass; `smallest`: the least that is enough. `beyond`: what these
    weights take besides as long as nobody else needs it. `reach`: the longest context of the model. `asked`: somebody
    asked for this context. A pass reads at most `chunk` tokens of a prompt.
    """

    opened: FromDisk
    layers: tuple[DiskLayer, ...]
    on_disk: ByteCount
    resident: ByteCount
    smallest: ByteCount
    context: int
    reach: int
    asked: bool
    chunk: int
    beyond: int = 0

    @property
    def memory(self) -> ByteCount:
        """For weights while one token is computed."""
        return ByteCount(min(self.opened.room(1), sum(each.size * each.experts for each in self.layers)))

    @property
    def whole(self) -> ByteCount:
        """All that it is expected to take while it draws."""
        weights = sum(each.size * each.experts for each in self.layers)
        return ByteCount(self.resident + min(self.opened.room(1) + self.beyond, weights))

    def with_free(self, free: int) -> DiskPlan:
        """The same once the model is open and has no weights from the disk yet: `free` bytes of memory are free."""
        return replace(self, beyond=max(0, free - (self.opened.spare or 0) - self.opened.memory))

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
        """The same for a text that chooses experts as the profiled tasks did, all tasks alike: the cache begins with
        the experts that they chose most."""
        if not self.routed or not profiles:
            return self
        each = [[_shares(picks[n]) for n in sorted(picks)] for picks in profiles.values()]
        shares = [[sum(of) / len(each) for of in zip(*layer, strict=True)] for layer in zip(*each, strict=True)]
        seed = tuple(share for layer in shares for share in layer)
        expected = self.with_picks(dict(enumerate(shares)))
        return replace(expected, opened=replace(self.opened, seed=seed))

    def forecast(self, disk_read: float, compute_seconds: float, tokens: int = 1) -> Forecast:
        """A step of `tokens` tokens together. `compute_seconds`: of the step with all weights in memory.

        Raises UsageError if the speed of the disk is not known."""
        if not disk_read:
            raise UsageError(
                "the model runs from the disk, but the speed of the disk is unknown",
                hint='add "disk_read", in bytes per second, to the file of the machine',
            )
        memory = max(1, self.opened.room(tokens) + self.beyond)
        return forecast(self.layers, memory, disk_read, compute_seconds, tokens)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each decision."""
        parts = "attention, shared experts, caches and buffers" if self.routed else "other layers, caches and buffers"
        kept = "the most used experts" if self.routed else "the layers that compute next"
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
        if self.chunk < ROWS:
            found.append(
                f"memory has room to read a prompt {counted(self.chunk, 'token')} at a time; with more room, dsr would "
                "read it faster"
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
    try:
        plan = disk_plan(card, available, options)
    except DoesNotFit:
        if _is_asked(options) and options.context and _need(card, options.context, options).kv_cache > available:
            context_for_memory(card, available, options)  # its error says which context would fit
        if _is_asked(options) or not _largest(card, available, options):
            raise
        return Fit(context_for_memory(card, available, options))  # a few tokens of context, with all weights in memory
    return Fit(plan.context, plan)


def fit_on_host(card: ModelCard, host: Host, options: LoadOptions) -> Fit:
    """`fit` in the memory that a model may take on this computer."""
    return fit(card, usable(host.memory_available), options)


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


@dataclass(frozen=True, slots=True)
class _Division:
    """Memory divided for passes of at most `rows` tokens. `shared`: bytes for weights from the disk and for working
    buffers, which take `row_bytes` for each token."""

    rows: int
    row_bytes: int
    units: Units
    layers: tuple[DiskLayer, ...]
    resident: int
    shared: int

    @property
    def smallest(self) -> int:
        return smallest_memory(self.layers) + self.row_bytes

    @property
    def opened(self) -> FromDisk:
        whole = sum(each.size * each.experts for each in self.layers) + self.rows * self.row_bytes
        layers = () if self.units.routed else self.units.layers
        return FromDisk(min(self.shared, whole), layers, row_bytes=self.row_bytes)

    def chunk(self, used: int) -> int:
        return most_tokens(self.units, used, self.opened, self.rows)


def disk_plan(card: ModelCard, available: ByteCount, options: LoadOptions) -> DiskPlan:
    """How the memory is divided for a model that does not fit. Raises DoesNotFit if every token needs too much."""
    reach = reach_of(card, options.yarn)
    asked = _is_asked(options)
    contexts = [options.context] if asked and options.context else _contexts(min(options.context or reach, reach))
    for context in contexts:
        need = _need(card, context, options)
        usual = _divided(card, context, options, available, min(ROWS, context))
        if not usual.units.stacks:
            raise _too_large(card, need, need.total, available, contexts[-1], asked=asked)
        if need.kv_cache <= (usual.shared + need.kv_cache) * _MOST_FOR_CONTEXT:
            break
    if usual.shared < usual.smallest:
        raise _too_large(card, need, usual.resident + usual.smallest, available, contexts[-1], asked=asked)
    best = _longest_passes(card, context, options, available, usual)
    spare = free_for(available) // _SPARE
    return DiskPlan(
        opened=replace(best.opened, spare=spare),
        layers=best.layers,
        on_disk=ByteCount(best.units.bytes),
        resident=ByteCount(best.resident),
        smallest=ByteCount(best.smallest),
        context=context,
        reach=reach,
        asked=asked,
        chunk=best.chunk(card.experts_used),
        beyond=free_for(available) - available - spare,
    )


def _longest_passes(
    card: ModelCard, context: int, options: LoadOptions, available: ByteCount, usual: _Division
) -> _Division:
    """The division with the longest passes whose experts have room, and that cost little for good."""
    for rows in range(min(MOST_ROWS, context) // _STEP * _STEP, usual.rows, -_STEP):
        larger = _divided(card, context, options, available, rows)
        affordable = larger.resident - usual.resident <= usual.shared * _MOST_FOR_ROWS
        if affordable and larger.shared >= larger.smallest and larger.chunk(card.experts_used) == rows:
            return larger
    return usual


def _divided(card: ModelCard, context: int, options: LoadOptions, available: ByteCount, rows: int) -> _Division:
    few, most = (_need(card, context, options, each) for each in (_FEW, rows))
    units = units_of(card)
    if not units.stacks:
        units = units_of(card, layers_to_leave(card, most, available))
    row_bytes = -(-max(0, most.compute - few.compute) // max(1, rows - _FEW))
    fixed = most.total - rows * row_bytes + rows * buffers.converted_bytes(card)
    resident = fixed - units.bytes
    return _Division(rows, row_bytes, units, disk_layers(card, units), resident, available - resident)


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


def _need(card: ModelCard, context: int, options: LoadOptions, rows: int = ROWS) -> memory.MemoryNeed:
    full, mtp = options.kv_full, options.mtp
    return memory.need(card, context, options.slots, options.kv_type, options.drafted, kv_full=full, mtp=mtp, rows=rows)


def _contexts(longest: int) -> list[int]:
    """The contexts to try, the longest first."""
    found = [min(longest, DEFAULT_CONTEXT)]
    while found[-1] // 2 >= SHORTEST_CONTEXT:
        found.append(found[-1] // 2)
    return found


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
