"""How many experts to keep: what the user asked for, or the fewest that a measurement finds harmless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.store import paths
from quant.experts import prune_search
from quant.experts.profiles import Profile
from quant.experts.prune import kept_number
from quant.experts.prune_search import Damage
from runtime.base.events import Listener, ignore
from runtime.base.run import Stop
from runtime.gguf.card import ModelCard

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Kept:
    """`keep` experts of each layer, the `damage` that this does, and the `bound` under which damage counts as harmless.
    `measured` is all that was measured for it, ascending."""

    keep: int
    experts: int
    damage: Damage
    bound: float
    measured: tuple[Damage, ...]

    @property
    def hurts(self) -> bool:
        """Whether the measurement says that answers will suffer."""
        return self.damage.kld.value > self.bound

    def __str__(self) -> str:
        """'12 of 16 experts, damage 0.0008 ± 0.0002 nats per token (harmless up to 0.01)'."""
        return (
            f"{self.keep} of {self.experts} experts, damage {self.damage.kld} nats per token "
            f"(harmless up to {self.bound:g})"
        )

    def json(self) -> dict[str, Any]:
        return {
            "keep": self.keep,
            "experts": self.experts,
            "kld": self.damage.kld.value,
            "kld_error": self.damage.kld.error,
            "same_top": self.damage.same_top.value,
            "worst_task": self.damage.task,
            "bound": self.bound,
            "hurts": self.hurts,
            "measured": [{"keep": each.keep, "kld": each.kld.value} for each in self.measured],
        }


def folder(digest: str) -> Path:
    """Where what was measured of a model is kept, beside its profiles. `digest` is the router digest."""
    return paths.experts_folder() / digest / "damage"


def choose(
    card: ModelCard,
    digest: str,
    profiles: Sequence[Profile],
    wanted: str,
    score: str,
    active: int | None = None,
    *,
    threads: int | None = None,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> Kept:
    """The number of experts that `wanted` ("auto", "50%", "8") stands for, with its damage measured.

    The file must have been tried before. Raises UsageError, Incompatible, EngineFailed, DoesNotFit, Aborted.
    """
    where = folder(digest)
    if wanted.casefold() == AUTO:
        found = prune_search.auto(card, profiles, score, active, cache=where, threads=threads, stop=stop, listen=listen)
        # Keeping all does no damage, unless a token is to use fewer of them.
        damage = prune_search.smallest(found) or found[-1]
    else:
        keeps = [kept_number(wanted, card.experts)]
        found = prune_search.curve(
            card, profiles, keeps, score, active, cache=where, threads=threads, stop=stop, listen=listen
        )
        [damage] = found
    return Kept(damage.keep, card.experts, damage, prune_search.KEEP_BOUND, found)
