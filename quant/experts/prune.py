"""Which experts of a mixture to keep: what the routers did on some tasks -> a plan. Pure.

The number of experts stands once in a model's metadata, so every layer keeps equally many; which ones, each layer's
own router decides. A model with groups of experts (DeepSeek-V3) keeps equally many per group where that is possible.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from quant.experts.profiles import Profile, routed_layers
from quant.measure.imatrix import Routing
from runtime.base.errors import Incompatible, UsageError
from runtime.base.types import ByteCount
from runtime.base.words import counted
from runtime.gguf.card import ModelCard
from runtime.gguf.tensor_name import parse_name

Score = Callable[[Routing], NDArray[np.float64]]

# What has a slice per expert (llama.cpp src/llama-arch.cpp): the stacked experts with their biases and factors, the
# router's rows, the correction of its choice.
_PER_EXPERT = re.compile(
    r"ffn_(?:gate|up|down|gate_up)_exps\.\w+|ffn_gate_inp\.(?:weight|bias)|exp_probs_b(?:_vl)?(?:\.bias)?"
)
# Experts that something else than a router's rows leads to: chosen by the token, or cut into shared pieces.
_OTHER_ROUTING = re.compile(r"ffn_gate_tid2eid|_chexps\.|ffn_(?:gate|up|down)\.\d+\.")
_LEAST_PER_GROUP = 2  # the engine tells groups apart by their two best experts (llama-graph.cpp, build_moe_ffn)
RANDOM = "random"
_ROUTER, _EXPERTS = "ffn_gate_inp", "ffn_down_exps"


def _counts(routing: Routing) -> NDArray[np.float64]:
    return routing.selected.astype(np.float64)


def _mass(routing: Routing) -> NDArray[np.float64]:
    return routing.weight


def _probability(routing: Routing) -> NDArray[np.float64]:
    return routing.probability


def _tcess(routing: Routing) -> NDArray[np.float64]:
    """PreMoe (arXiv 2505.17639): the sum of the raw logits of those tokens that ranked the expert first.

    Logits may be negative: an expert that was never first, with a sum of 0, would then outrank one that was. So the
    others' sums are lifted above 0, in their order.
    """
    logits = routing.top_logit
    return np.where(logits != 0, logits - 2 * min(logits.min(), 0.0), 0.0)


def _easy_ep(routing: Routing) -> NDArray[np.float64]:
    """EASY-EP (arXiv 2504.06792), without the factor of the token: gate weight times length of the output."""
    return routing.output


SCORES: Mapping[str, Score] = MappingProxyType(
    {"easy-ep": _easy_ep, "mass": _mass, "probability": _probability, "counts": _counts, "tcess": _tcess}
)
# The best at half the experts and below on the embedded model, with "mass" beside it; see docs/experts.md.
DEFAULT_SCORE = "easy-ep"


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """Which experts stay. `kept` has those of each layer, ascending and numbered as in the model read, in which each
    layer has `experts`; `active` is how many a token will use, `active_before` how many it used.

    `groups` is 1 where the model to write has none, `grouping` says in words what became of them, "" without any.
    `lost` is the share of the gate's weight that the dropped experts of a layer had, tasks weighing alike. Layers that
    no profile tells of (those that predict several tokens) are `unprofiled`: they keep their first experts. `profiles`
    are the digests of the profiles of `tasks`. The weights are bytes of tensors; the whole file's size is
    `quant.experts.pruned_source.PrunedSource.file_plan().bytes`.
    """

    kept: Mapping[int, tuple[int, ...]]
    experts: int
    keep: int
    active: int
    active_before: int
    groups: int
    grouping: str
    lost: Mapping[int, float]
    tasks: tuple[str, ...]
    profiles: tuple[str, ...]
    score: str
    unprofiled: tuple[int, ...]
    weights_before: ByteCount
    weights_after: ByteCount

    def __post_init__(self) -> None:
        if not 1 <= self.active <= self.keep <= self.experts:
            raise ValueError(f"{self.active} of {self.keep} of {self.experts} experts")
        for layer, kept in self.kept.items():
            if len(kept) != self.keep or list(kept) != sorted({*kept}) or not 0 <= kept[0] <= kept[-1] < self.experts:
                raise ValueError(f"layer {layer}: {kept} are not {self.keep} experts of {self.experts}")

    @property
    def mean_lost(self) -> float:
        return sum(self.lost.values()) / len(self.lost) if self.lost else 0.0

    @property
    def removes_anything(self) -> bool:
        """Whether the model to write is another than the one read."""
        return self.keep < self.experts or self.active != self.active_before


def plan(
    card: ModelCard,
    profiles: Sequence[Profile],
    keep: int,
    score: str = DEFAULT_SCORE,
    active: int | None = None,
) -> PrunePlan:
    """Keep the `keep` best experts of each layer by what the routers did on the profiles' tasks.

    `active` is how many experts a token uses then; None leaves it as it is. Raises UsageError (a number that does not
    go, an unknown score), Incompatible (no experts, experts that are stored in another way, another model's profile).
    """
    layers = expert_layers(card)
    check_profiles(card, profiles)
    return _plan(card, layers, ranking(profiles, score), keep, active, profiles, score)


def at_random(card: ModelCard, keep: int, seed: int, active: int | None = None) -> PrunePlan:
    """`keep` experts of each layer by lot, to compare with. Raises what `plan` does."""
    layers = expert_layers(card)
    chance = random.Random(seed)
    order = {layer: np.array(chance.sample(range(card.experts), card.experts)) for layer in layers}
    return _plan(card, layers, order, keep, active, (), RANDOM)


def scores(profiles: Sequence[Profile], score: str = DEFAULT_SCORE) -> dict[int, NDArray[np.float64]]:
    """Per layer, what each expert is worth, (experts,), adding up to 1 (or 0: nothing was routed).

    Of several profiles each has the same weight, however long its text. Raises UsageError for an unknown score.
    """
    if score not in SCORES:
        raise UsageError(f"{score!r} is no score", hint=f"there are {', '.join(SCORES)}")
    return _merged(profiles, SCORES[score])


def ranking(profiles: Sequence[Profile], score: str = DEFAULT_SCORE) -> dict[int, NDArray[np.intp]]:
    """Per layer, all experts, the best first. Where the score cannot tell (experts that no token was sent to), the
    selections decide, then the gate's probabilities, then the lower number."""
    best = scores(profiles, score)
    counts, probability = _merged(profiles, _counts), _merged(profiles, _probability)
    return {layer: np.lexsort((-probability[layer], -counts[layer], -values)) for layer, values in best.items()}


def kept_number(wanted: str, experts: int) -> int:
    """ "8" or "50%" as a number of experts; a share is rounded up. Raises UsageError."""
    share = wanted.removesuffix("%")
    try:
        number = float(share) / 100 * experts if share != wanted else int(wanted)
        if not 0 < number <= experts:
            raise UsageError(f"--keep {wanted}: not between 1 and all {experts} experts of a layer")
    except ValueError:
        raise UsageError(
            f"--keep {wanted}: neither a number of experts nor a share", hint="as in 8, 50%, auto"
        ) from None
    return math.ceil(round(number, 6))


def least_keep(card: ModelCard, active: int | None = None) -> int:
    """The fewest experts that can be kept."""
    return card.experts_used if active is None else active


def check_numbers(card: ModelCard, keep: int, active: int | None = None) -> None:
    """Raise UsageError for a number of experts that no file can have."""
    used = least_keep(card, active)
    if keep > card.experts:
        raise UsageError(f"there are {card.experts} experts in a layer, not {keep}")
    if not 1 <= used <= card.experts:
        raise UsageError(f"a token cannot use {used} of {card.experts} experts")
    if keep < used:
        raise UsageError(
            f"{counted(keep, 'expert')} cannot be kept where each token uses {used}",
            hint=f"--keep {used} at least, or fewer at a time with --active N",
        )


def expert_layers(card: ModelCard) -> tuple[int, ...]:
    """The layers that have routed experts. Raises Incompatible where there are none that could be taken apart."""
    routed_layers(card)
    layers: dict[int, list[str]] = {}
    for tensor in card.tensors:
        layer = sliced_layer(tensor.name)
        if layer is not None:
            layers.setdefault(layer, []).append(tensor.name)
        if _OTHER_ROUTING.search(tensor.name) or (layer is not None and tensor.shape[-1] != card.experts):
            raise Incompatible(f"{card.name}: {tensor.name} is of experts that cannot be taken apart")
    if not layers or not all(
        {_ROUTER, _EXPERTS} <= {parse_name(name).part.split(".")[0] for name in names} for names in layers.values()
    ):
        raise Incompatible(f"{card.name}: its experts are not stored one beside the other, with a router")
    return tuple(sorted(layers))


def sliced_layer(name: str) -> int | None:
    """The layer of a tensor whose last dimension is over the routed experts; None for all others."""
    named = parse_name(name)
    return named.layer if _PER_EXPERT.fullmatch(named.part) else None


def check_profiles(card: ModelCard, profiles: Sequence[Profile]) -> None:
    """Raise UsageError without a profile, Incompatible where one cannot be of this model."""
    if not profiles:
        raise UsageError("no task was named", hint="--task NAME; dsr experts show MODEL lists what was profiled")
    layers = expert_layers(card)
    trunk = set(routed_layers(card))
    for profile in profiles:
        found = {layer: routing.selected.size for layer, routing in profile.routing.items()}
        if not trunk <= set(found) <= set(layers) or set(found.values()) != {card.experts}:
            raise Incompatible(
                f"the profile of {profile.task} is of another model: {counted(len(found), 'layer')} of "
                f"{max(found.values(), default=0)} experts, not {len(trunk)} of {card.experts}",
                hint=f"profile this one: dsr experts profile MODEL --task {profile.task}",
            )


def _merged(profiles: Sequence[Profile], score: Score) -> dict[int, NDArray[np.float64]]:
    layers = sorted({layer for profile in profiles for layer in profile.routing})
    found = {
        layer: np.sum([_shares(score(profile.routing[layer])) for profile in profiles if layer in profile.routing], 0)
        for layer in layers
    }
    return {layer: _shares(values) for layer, values in found.items()}


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total = values.sum()
    return np.asarray(values / total if total > 0 else np.zeros_like(values))


def _plan(
    card: ModelCard,
    layers: Sequence[int],
    order: Mapping[int, NDArray[np.intp]],
    keep: int,
    active: int | None,
    profiles: Sequence[Profile],
    score: str,
) -> PrunePlan:
    """`order` may leave layers out: they keep their first experts."""
    experts, used = card.experts, least_keep(card, active)
    check_numbers(card, keep, active)
    groups, grouping = _grouping(card, keep, used)
    first = np.arange(experts)
    kept = {layer: _best(order.get(layer, first), keep, experts, groups) for layer in layers}
    mass = scores(profiles, "mass")
    sliced = sum(tensor.size for tensor in card.tensors if sliced_layer(tensor.name) is not None)
    return PrunePlan(
        kept=MappingProxyType(kept),
        experts=experts,
        keep=keep,
        active=used,
        active_before=card.experts_used,
        groups=groups,
        grouping=grouping,
        lost=MappingProxyType({layer: float(np.delete(mass[layer], kept[layer]).sum()) for layer in mass}),
        tasks=tuple(profile.task for profile in profiles),
        profiles=tuple(profile.digest for profile in profiles),
        score=score,
        unprofiled=tuple(layer for layer in layers if layer not in order),
        weights_before=card.weights_size,
        weights_after=ByteCount(card.weights_size - sliced + sliced // experts * keep),
    )


def _best(order: NDArray[np.intp], keep: int, experts: int, groups: int) -> tuple[int, ...]:
    """The first `keep` of `order`, equally many of each group."""
    each, size = keep // groups, experts // groups
    found = [int(n) for group in range(groups) for n in order[order // size == group][:each]]
    return tuple(sorted(found))


def _grouping(card: ModelCard, keep: int, active: int) -> tuple[int, str]:
    """How many groups the experts stay in, and why."""
    groups = _metadata(card, "expert_group_count")
    if groups <= 1:
        return 1, ""
    used, each, rest = _metadata(card, "expert_group_used_count"), *divmod(keep, groups)
    if rest:
        why = f"{keep} do not divide by {groups}"
    elif each < _LEAST_PER_GROUP:
        why = f"a group must have {_LEAST_PER_GROUP} experts at least"
    elif each * used < active:
        why = f"the {used} groups that a token uses would have fewer than its {active} experts"
    else:
        return groups, f"each of the {groups} groups of experts keeps {each} of {card.experts // groups}"
    return 1, f"the {groups} groups of experts are given up, so a token chooses among all: {why}"


def _metadata(card: ModelCard, key: str) -> int:
    value = card.metadata.get(f"{card.architecture}.{key}", 0)
    return value if isinstance(value, int) else 0
