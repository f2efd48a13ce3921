"""How many experts to keep: the number in the request, or the smallest number with little loss. Measures the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.loading.options import AUTO
from dsr.store import paths
from quant.experts.profile import Profile
from quant.experts.prune_plan import keep_count
from quant.experts.prune_search import KLD_LIMIT, KldPoint, kld_curve, search_keep, smallest_keep
from runtime.base.run import Run
from runtime.gguf.card import ModelCard


@dataclass(frozen=True, slots=True)
class KeepChoice:
    """`keep` of `experts` experts per layer, and the KL divergence that this costs.

    `limit` is the largest divergence that counts as harmless. `measured` has all points that were measured, ascending.
    """

    keep: int
    experts: int
    point: KldPoint
    limit: float
    measured: tuple[KldPoint, ...]

    @property
    def exceeds_limit(self) -> bool:
        """Whether the answers will be worse, by the measurement."""
        return self.point.kld.value > self.limit

    def json(self) -> dict[str, Any]:
        return {
            "keep": self.keep,
            "experts": self.experts,
            "kld": self.point.kld.value,
            "kld_error": self.point.kld.error,
            "same_top": self.point.same_top.value,
            "worst_task": self.point.task,
            "bound": self.limit,
            "hurts": self.exceeds_limit,
            "measured": [{"keep": each.keep, "kld": each.kld.value} for each in self.measured],
        }


def kld_folder(digest: str) -> Path:
    """The folder of a model's measured divergences, in the folder of its profiles. `digest` is the router digest."""
    return paths.experts_folder() / digest / "damage"


def choose_keep(
    card: ModelCard,
    digest: str,
    profiles: Sequence[Profile],
    keep: str,
    score: str,
    active: int | None = None,
    *,
    run: Run,
) -> KeepChoice:
    """The number of experts for `keep` ("auto", "50%", "8"), with its measured divergence.

    Open the file in a child process before this call. Raises UsageError, Incompatible, EngineFailed, DoesNotFit,
    Aborted.
    """
    cache = kld_folder(digest)
    if keep.casefold() == AUTO:
        found = search_keep(card, profiles, score, active, cache=cache, run=run)
        # With all experts the divergence is 0, unless `active` is smaller.
        point = smallest_keep(found) or found[-1]
    else:
        found = kld_curve(card, profiles, [keep_count(keep, card.experts)], score, active, cache=cache, run=run)
        [point] = found
    return KeepChoice(point.keep, card.experts, point, KLD_LIMIT, found)
