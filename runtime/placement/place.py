"""Where every layer of a model goes: the fastest split of a model over a machine that its memory allows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from runtime.base.errors import DoesNotFit, Incompatible, UsageError
from runtime.base.types import ByteCount
from runtime.gguf import types
from runtime.gguf.card import ModelCard
from runtime.gguf.layers import layer_count
from runtime.machine.machine import Machine
from runtime.placement import explain, nearest
from runtime.placement.latency import Latency, Share, Terms, fits_home
from runtime.placement.memory import Costs, costs
from runtime.placement.offload import flags, offload
from runtime.placement.split import default_shares, fastest_split, in_order, missing_bytes

_PASS = 512  # tokens of a prompt that are read together, llama.cpp's default
_PASSES = (1, 2, 8, 32, 128, _PASS)  # between these a pass is taken to be linear


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be run: `samples` drawn together share `context` tokens of KV cache.

    Speeds hold where each sample has `filled` tokens behind it: half of its part of the context unless it is said.
    `from_disk` allows weights that are in no memory and are read from the disk whenever they are met.
    """

    context: int
    samples: int = 1
    kv_type: str = "f16"
    drafted: int = 0
    filled: int | None = None
    from_disk: bool = False

    def __post_init__(self) -> None:
        if self.context < 1 or self.samples < 1 or self.drafted < 0 or (self.filled or 0) < 0:
            raise UsageError(f"a context of {self.context} tokens for {self.samples} samples cannot be planned")
        types.kv_type(self.kv_type)

    @property
    def attended(self) -> int:
        return self.context // (2 * self.samples) if self.filled is None else self.filled


@dataclass(frozen=True, slots=True)
class Assigned(Share):
    """What a device is given, in bytes, and the `seconds` it takes of one step."""

    weights: int
    kv_cache: int
    compute: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Placement:
    """In the order of the layers, this machine's CPU first. One step draws one token of each sample.

    `passes` has (tokens, seconds) of reading so many tokens of a prompt together, `attending` the seconds of one token
    for each token before it.
    """

    assigned: tuple[Assigned, ...]
    wanted: Wanted
    seconds_per_step: float
    load_seconds: float
    passes: tuple[tuple[int, float], ...]
    attending: float
    binding: str
    reasons: tuple[str, ...]
    alternatives: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float:
        """Of all samples together."""
        return self.wanted.samples / self.seconds_per_step

    def first_token_seconds(self, prompt: int) -> float:
        """To read a prompt of so many tokens, from nothing."""
        whole, rest = divmod(max(1, prompt), _PASS)
        seconds = whole * self.passes[-1][1] + self.attending * prompt * prompt / 2
        if rest:
            more = next(n for n, (tokens, _) in enumerate(self.passes) if tokens >= rest)
            (low, before), (high, after) = self.passes[max(0, more - 1)], self.passes[more]
            seconds += after if high == rest else before + (after - before) * (rest - low) / (high - low)
        return seconds


def place(card: ModelCard, machine: Machine, wanted: Wanted) -> Placement:
    """The fastest split. Raises DoesNotFit: by how many bytes; its hint are the nearest things that fit."""
    latency, need = _priced(card, machine, wanted)
    shares = fastest_split(latency, need, from_disk=wanted.from_disk)
    if shares is None:
        raise _does_not_fit(card, machine, wanted)
    default = _default(latency, need)
    reasons = explain.reasons(latency, need, shares, wanted.context, wanted.kv_type)
    alternatives = explain.alternatives(latency, need, shares, default, wanted.samples)
    return _placement(latency, need, shares, wanted, reasons, alternatives)


def default_split(card: ModelCard, machine: Machine, wanted: Wanted) -> Placement:
    """What llama.cpp does by itself: layers in proportion to free memory, the rest on the CPU, over the disk where that
    is too small. Raises DoesNotFit where the disk cannot help."""
    latency, need = _priced(card, machine, wanted)
    shares = _default(latency, need)
    if shares is None:
        raise _does_not_fit(card, machine, wanted)
    return _placement(latency, need, shares, wanted, (), ())


def _priced(card: ModelCard, machine: Machine, wanted: Wanted) -> tuple[Latency, Costs]:
    if not layer_count(card):
        raise Incompatible(f"{card.name}: without layers there is nothing to place")
    latency = Latency(card, machine, wanted.samples, wanted.attended, wanted.kv_type)
    return latency, costs(card, wanted.context, wanted.samples, wanted.kv_type, wanted.drafted)


def _default(latency: Latency, need: Costs) -> tuple[Share, ...] | None:
    """None where not even the disk can help this machine's memory."""
    shares = default_shares(latency.machine, need)
    return shares if fits_home(shares[0], need, from_disk=latency.machine.disk_read > 0) else None


def _placement(
    latency: Latency,
    need: Costs,
    shares: tuple[Share, ...],
    wanted: Wanted,
    reasons: tuple[str, ...],
    alternatives: tuple[str, ...],
) -> Placement:
    terms = latency.of(shares, need)
    assigned = tuple(map(lambda share, each: _assigned(share, each, need), shares, terms))
    how = offload(latency.card, in_order(latency.machine)[1:], shares)
    return Placement(
        assigned=assigned,
        wanted=wanted,
        seconds_per_step=sum(each.total for each in terms),
        load_seconds=latency.load_seconds([(each.device, each.weights) for each in assigned]),
        passes=tuple((tokens, _pass_seconds(latency, need, shares, tokens)) for tokens in _PASSES),
        attending=_attending(latency, need, shares),
        binding=explain.binding(shares, terms),
        reasons=reasons,
        alternatives=alternatives,
        flags=flags(how, wanted.context, wanted.samples, wanted.kv_type),
    )


def _assigned(share: Share, terms: Terms, need: Costs) -> Assigned:
    held = need.need(share.layers, share.experts, head=share.head, home=share.is_home)
    return Assigned(
        device=share.device,
        layers=share.layers,
        experts=share.experts,
        head=share.head,
        weights=held.weights,
        kv_cache=held.kv_cache,
        compute=held.compute,
        seconds=terms.total,
    )


def _pass_seconds(latency: Latency, need: Costs, shares: tuple[Share, ...], tokens: int) -> float:
    """Without attention to what is before. Only the last token of a prompt asks for the head."""
    together, one = replace(latency, rows=tokens, attended=0), replace(latency, rows=1)
    terms = together.of([replace(share, head=False) for share in shares], need)
    return sum(each.total for each in terms) + sum(one.head(share.device).total for share in shares if share.head)


def _attending(latency: Latency, need: Costs, shares: tuple[Share, ...]) -> float:
    one = replace(latency, rows=1, attended=1)
    return reduce(add, one.of(shares, need)).attention


def _does_not_fit(card: ModelCard, machine: Machine, wanted: Wanted) -> DoesNotFit:
    latency, need = _priced(card, machine, wanted)
    missing = max(1, missing_bytes(latency, need, from_disk=wanted.from_disk))
    every = range(len(need.layers))
    whole = need.need(every, every, head=True, home=True).total

    def lacks(context: int, kv_type: str) -> int:
        other = replace(wanted, context=context, kv_type=kv_type)
        return missing_bytes(*_priced(card, machine, other), from_disk=wanted.from_disk)

    hints = nearest.hints(card, need, wanted.context, wanted.kv_type, missing, lacks)
    if not wanted.from_disk and machine.disk_read:
        hints += _from_disk(card, machine, wanted)
    return DoesNotFit(
        f"{whole} of memory is needed for a context of {wanted.context} tokens, "
        f"there is room for {machine.memory_free} and {ByteCount(missing)} is missing",
        hint="; ".join(hints) or None,
        missing=missing,
    )


def _from_disk(card: ModelCard, machine: Machine, wanted: Wanted) -> tuple[str, ...]:
    try:
        speed = place(card, machine, replace(wanted, from_disk=True)).tokens_per_second
    except DoesNotFit:
        return ()
    return (f"from the disk, again for every token, it would reach {explain.speed(speed)}",)
