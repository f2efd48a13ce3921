"""Places a model: finds the fastest split of its layers over the devices of a machine that fits their memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from runtime.base.errors import DoesNotFit, Incompatible, UsageError
from runtime.base.types import ByteCount
from runtime.engine.backend import ROWS
from runtime.gguf.card import ModelCard, layer_count
from runtime.gguf.kv_types import kv_types
from runtime.machine.machine import Machine
from runtime.placement import explain, fit_hints
from runtime.placement.latency import LatencyModel, Share, StepTime, fits_local_memory
from runtime.placement.memory import PartSizes, part_sizes
from runtime.placement.offload import flags, offload
from runtime.placement.split import default_shares, fastest_split, layer_order, missing_bytes

_PASSES = (1, 2, 8, 32, 128, ROWS)  # the time of other batch sizes is interpolated


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """What to place: `samples` that run together share `context` tokens of KV cache.

    Speeds are predicted for samples with `filled` tokens in the cache. Default: half of each sample's part.
    With `kv_full` layers with a sliding window keep all tokens. `drafted` is the largest number of draft tokens that
    are checked at once. `from_disk` allows weights that fit no memory: the disk reads them again in each step.
    """

    context: int
    samples: int = 1
    kv_type: str = "f16"
    kv_full: bool = False
    drafted: int = 0
    filled: int | None = None
    from_disk: bool = False

    def __post_init__(self) -> None:
        if self.context < 1 or self.samples < 1 or self.drafted < 0 or (self.filled or 0) < 0:
            raise UsageError(f"the context ({self.context} tokens) and the samples ({self.samples}) must be at least 1")
        kv_types(self.kv_type)

    @property
    def attended(self) -> int:
        return self.context // (2 * self.samples) if self.filled is None else self.filled


@dataclass(frozen=True, slots=True)
class Assignment(Share):
    """The share of one device with its bytes, and the `seconds` it takes in each step."""

    weights: int
    kv_cache: int
    compute: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Which device holds what, in the order of the layers, with the CPU of this machine first.

    One step draws one token of each sample. `passes` has pairs (tokens, seconds): the time to read a batch of so many
    prompt tokens without earlier ones. `attention_seconds` is the time of one token for each earlier token.
    """

    assignments: tuple[Assignment, ...]
    request: PlacementRequest
    seconds_per_step: float
    load_seconds: float
    passes: tuple[tuple[int, float], ...]
    attention_seconds: float
    bottleneck: str
    reasons: tuple[str, ...]
    alternatives: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float:
        """The speed of all samples together."""
        return self.request.samples / self.seconds_per_step

    def first_token_seconds(self, prompt: int) -> float:
        """The time to read a prompt of `prompt` tokens with an empty cache."""
        whole, rest = divmod(max(1, prompt), ROWS)
        seconds = whole * self.passes[-1][1] + self.attention_seconds * prompt * prompt / 2
        if rest:
            more = next(n for n, (tokens, _) in enumerate(self.passes) if tokens >= rest)
            (low, before), (high, after) = self.passes[max(0, more - 1)], self.passes[more]
            seconds += after if high == rest else before + (after - before) * (rest - low) / (high - low)
        return seconds


def place(card: ModelCard, machine: Machine, request: PlacementRequest) -> Placement:
    """The fastest split that fits. Raises DoesNotFit with the missing bytes and hints on what would fit instead."""
    latency, sizes = _models(card, machine, request)
    shares = fastest_split(latency, sizes, from_disk=request.from_disk)
    if shares is None:
        raise _does_not_fit(card, machine, request)
    default = _default(latency, sizes)
    reasons = explain.reasons(latency, sizes, shares, request.context, request.kv_type)
    alternatives = explain.alternatives(latency, sizes, shares, default, request.samples)
    return _placement(latency, sizes, shares, request, reasons, alternatives)


def default_split(card: ModelCard, machine: Machine, request: PlacementRequest) -> Placement:
    """The split that llama.cpp chooses without options: GPUs get layers in proportion to their free memory, the CPU the
    rest. Raises DoesNotFit if the CPU's memory is too small and the disk's speed is unknown."""
    latency, sizes = _models(card, machine, request)
    shares = _default(latency, sizes)
    if shares is None:
        raise _does_not_fit(card, machine, request)
    return _placement(latency, sizes, shares, request, (), ())


def _models(card: ModelCard, machine: Machine, request: PlacementRequest) -> tuple[LatencyModel, PartSizes]:
    if not layer_count(card):
        raise Incompatible(f"{card.name}: the file has no layers to place")
    latency = LatencyModel(card, machine, request.samples, request.attended, request.kv_type, kv_full=request.kv_full)
    sizes = part_sizes(
        card, request.context, request.samples, request.kv_type, request.drafted, kv_full=request.kv_full
    )
    return latency, sizes


def _default(latency: LatencyModel, sizes: PartSizes) -> tuple[Share, ...] | None:
    """llama.cpp's own split; None if it does not fit, even with weights read from the disk."""
    shares = default_shares(latency.machine, sizes)
    return shares if fits_local_memory(shares[0], sizes, from_disk=latency.machine.disk_read > 0) else None


def _placement(
    latency: LatencyModel,
    sizes: PartSizes,
    shares: tuple[Share, ...],
    request: PlacementRequest,
    reasons: tuple[str, ...],
    alternatives: tuple[str, ...],
) -> Placement:
    times = latency.of(shares, sizes)
    assignments = tuple(map(lambda share, each: _assignment(share, each, sizes), shares, times))
    how = offload(latency.card, layer_order(latency.machine)[1:], shares)
    return Placement(
        assignments=assignments,
        request=request,
        seconds_per_step=sum(each.total for each in times),
        load_seconds=latency.load_seconds([(each.device, each.weights) for each in assignments]),
        passes=tuple((tokens, _pass_seconds(latency, sizes, shares, tokens)) for tokens in _PASSES),
        attention_seconds=_attention_seconds(latency, sizes, shares),
        bottleneck=explain.bottleneck(shares, times),
        reasons=reasons,
        alternatives=alternatives,
        flags=flags(how, request.context, request.samples, request.kv_type, full=request.kv_full),
    )


def _assignment(share: Share, times: StepTime, sizes: PartSizes) -> Assignment:
    held = sizes.need(share.layers, share.experts, head=share.head, local=share.is_local_cpu)
    return Assignment(
        device=share.device,
        layers=share.layers,
        experts=share.experts,
        head=share.head,
        weights=held.weights,
        kv_cache=held.kv_cache,
        compute=held.compute,
        seconds=times.total,
    )


def _pass_seconds(latency: LatencyModel, sizes: PartSizes, shares: tuple[Share, ...], tokens: int) -> float:
    """The time to read a batch of `tokens` prompt tokens with an empty cache; only the last one needs the head."""
    together, one = replace(latency, rows=tokens, attended=0), replace(latency, rows=1)
    times = together.of([replace(share, head=False) for share in shares], sizes)
    return sum(each.total for each in times) + sum(one.head(share.device).total for share in shares if share.head)


def _attention_seconds(latency: LatencyModel, sizes: PartSizes, shares: tuple[Share, ...]) -> float:
    one = replace(latency, rows=1, attended=1)
    return reduce(add, one.of(shares, sizes)).attention


def _does_not_fit(card: ModelCard, machine: Machine, request: PlacementRequest) -> DoesNotFit:
    latency, sizes = _models(card, machine, request)
    missing = max(1, missing_bytes(latency, sizes, from_disk=request.from_disk))
    every = range(len(sizes.layers))
    whole = sizes.need(every, every, head=True, local=True).total

    def lacks(context: int, kv_type: str) -> int:
        other = replace(request, context=context, kv_type=kv_type)
        return missing_bytes(*_models(card, machine, other), from_disk=request.from_disk)

    hints = fit_hints.hints(card, sizes, request.context, request.kv_type, missing, lacks)
    if not request.from_disk and machine.disk_read:
        hints += _from_disk(card, machine, request)
    return DoesNotFit(
        f"a context of {request.context} tokens needs {whole} of memory, but {machine.memory_free} can be used: "
        f"{ByteCount(missing)} is missing",
        hint="; ".join(hints) or None,
        missing=missing,
    )


def _from_disk(card: ModelCard, machine: Machine, request: PlacementRequest) -> tuple[str, ...]:
    try:
        speed = place(card, machine, replace(request, from_disk=True)).tokens_per_second
    except DoesNotFit:
        return ()
    return (f"reading weights from the disk for every token would give {explain.speed(speed)}",)
