"""Which experts of a model to keep: router statistics of some tasks -> a plan. Pure.

A model's metadata has one number of experts, so every layer keeps equally many. The statistics of its own router decide
which. A model with groups of experts (DeepSeek-V3) keeps equally many per group where that is possible.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from quant.experts.expert_tensors import expert_layers, routed_layers, sliced_layer
from quant.experts.profile import Profile
from quant.experts.pruned_metadata import KeptExperts
from quant.experts.scores import DEFAULT_SCORE, ranking, scores
from runtime.base.errors import Incompatible, UsageError
from runtime.base.types import ByteCount, counted
from runtime.gguf.card import ModelCard

_MIN_PER_GROUP = 2  # the engine ranks groups by their two best experts (llama-graph.cpp, build_moe_ffn)
RANDOM = "random"


@dataclass(frozen=True, slots=True)
class PrunePlan(KeptExperts):
    """The experts to keep, ascending in each layer and numbered as in the model that is read.

    `active` is how many experts a token will use. `groups` is the number of groups of experts in the new file, 1 for
    none. `layer_lost_weight` is `lost_weight` by layer. `unprofiled` layers have no router statistics (they predict
    further tokens) and keep their first experts. `weights_before` and `weights_after` are bytes of tensors; for the
    size of the whole file see `quant.experts.pruned_source.PrunedSource.file_plan().bytes`.
    """

    active: int
    groups: int
    layer_lost_weight: Mapping[int, float]
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
    def changes_model(self) -> bool:
        """Whether the new model differs from the one that is read."""
        return self.keep < self.experts or self.active != self.active_before


def plan_prune(
    card: ModelCard,
    profiles: Sequence[Profile],
    keep: int,
    score: str = DEFAULT_SCORE,
    active: int | None = None,
) -> PrunePlan:
    """Keep the `keep` best experts of each layer by the router statistics of the profiles.

    `active` is the number of experts per token in the new model; None leaves it unchanged. Raises UsageError (an
    impossible number, an unknown score), Incompatible (no experts that dsr can separate, another model's profile).
    """
    layers = expert_layers(card)
    check_profiles(card, profiles)
    return _plan(card, layers, ranking(profiles, score), keep, active, profiles, score)


def plan_random(card: ModelCard, keep: int, seed: int, active: int | None = None) -> PrunePlan:
    """Keep `keep` random experts of each layer, as a baseline. Raises what `plan_prune` does."""
    layers = expert_layers(card)
    generator = random.Random(seed)
    order = {layer: np.array(generator.sample(range(card.experts), card.experts)) for layer in layers}
    return _plan(card, layers, order, keep, active, (), RANDOM)


def keep_count(keep: str, experts: int) -> int:
    """The number of experts for "8" or "50%"; a share is rounded up. Raises UsageError."""
    share = keep.removesuffix("%")
    try:
        number = float(share) / 100 * experts if share != keep else int(keep)
        if not 0 < number <= experts:
            raise UsageError(f"--keep {keep}: not between 1 and the {experts} experts of a layer")
    except ValueError:
        raise UsageError(
            f"--keep {keep}: neither a number of experts nor a percentage", hint="for example 8, 50% or auto"
        ) from None
    return math.ceil(round(number, 6))


def min_keep(card: ModelCard, active: int | None = None) -> int:
    """The smallest number of experts per layer that a file can have: as many as a token uses."""
    return card.experts_used if active is None else active


def check_keep(card: ModelCard, keep: int, active: int | None = None) -> None:
    """Raises UsageError for a number of experts that no file can have."""
    used = min_keep(card, active)
    if keep > card.experts:
        raise UsageError(f"a layer has {card.experts} experts, not {keep}")
    if not 1 <= used <= card.experts:
        raise UsageError(f"a token cannot use {used} of {card.experts} experts")
    if keep < used:
        raise UsageError(
            f"{counted(keep, 'expert is', 'experts are')} too few for a layer: each token uses {used}",
            hint=f"--keep {used} or more, or fewer per token with --active N",
        )


def check_profiles(card: ModelCard, profiles: Sequence[Profile]) -> None:
    """Raises UsageError without a profile, Incompatible for a profile of another model."""
    if not profiles:
        raise UsageError("no task is given", hint="--task NAME; dsr experts show MODEL lists the profiled tasks")
    layers = expert_layers(card)
    trunk = set(routed_layers(card))
    for profile in profiles:
        found = {layer: routing.selected.size for layer, routing in profile.routing.items()}
        if not trunk <= set(found) <= set(layers) or set(found.values()) != {card.experts}:
            raise Incompatible(
                f"the profile of {profile.task} is of another model: {counted(len(found), 'layer')} of "
                f"{max(found.values(), default=0)} experts, not {len(trunk)} of {card.experts}",
                hint=f"profile this model: dsr experts profile MODEL --task {profile.task}",
            )


def _plan(
    card: ModelCard,
    layers: Sequence[int],
    order: Mapping[int, NDArray[np.intp]],
    keep: int,
    active: int | None,
    profiles: Sequence[Profile],
    score: str,
) -> PrunePlan:
    """A layer that is missing in `order` keeps its first experts."""
    experts, used = card.experts, min_keep(card, active)
    check_keep(card, keep, active)
    groups, grouping = _grouping(card, keep, used)
    first = np.arange(experts)
    kept = {layer: _best(order.get(layer, first), keep, experts, groups) for layer in layers}
    mass = scores(profiles, "mass")
    lost = {layer: float(np.delete(mass[layer], kept[layer]).sum()) for layer in mass}
    sliced = sum(tensor.size for tensor in card.tensors if sliced_layer(tensor.name) is not None)
    return PrunePlan(
        experts=experts,
        kept=MappingProxyType(kept),
        active_before=card.experts_used,
        tasks=tuple(profile.task for profile in profiles),
        profiles=tuple(profile.digest for profile in profiles),
        score=score,
        grouping=grouping,
        lost_weight=sum(lost.values()) / len(lost) if lost else 0.0,
        active=used,
        groups=groups,
        layer_lost_weight=MappingProxyType(lost),
        unprofiled=tuple(layer for layer in layers if layer not in order),
        weights_before=card.weights_size,
        weights_after=ByteCount(card.weights_size - sliced + sliced // experts * keep),
    )


def _best(order: NDArray[np.intp], keep: int, experts: int, groups: int) -> tuple[int, ...]:
    """The first `keep` experts of `order`, equally many of each group."""
    each, size = keep // groups, experts // groups
    found = [int(n) for group in range(groups) for n in order[order // size == group][:each]]
    return tuple(sorted(found))


def _grouping(card: ModelCard, keep: int, active: int) -> tuple[int, str]:
    """The number of groups in the new model, and why."""
    groups = _metadata(card, "expert_group_count")
    if groups <= 1:
        return 1, ""
    used, each, rest = _metadata(card, "expert_group_used_count"), *divmod(keep, groups)
    if rest:
        why = f"{keep} is not divisible by {groups}"
    elif each < _MIN_PER_GROUP:
        why = f"a group must have at least {_MIN_PER_GROUP} experts"
    elif each * used < active:
        why = f"the {used} groups that a token uses would have fewer than {active} experts"
    else:
        return groups, f"each of the {groups} groups of experts keeps {each} of {card.experts // groups}"
    return 1, f"the {groups} groups of experts become one: {why}"


def _metadata(card: ModelCard, key: str) -> int:
    value = card.metadata.get(f"{card.architecture}.{key}", 0)
    return value if isinstance(value, int) else 0
