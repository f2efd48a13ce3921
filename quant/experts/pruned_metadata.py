"""The keys `dsr.pruned.*` in the metadata of a pruned file: which experts it keeps, and how they were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quant.gguf import writer
from quant.gguf.writer import KeyValue
from runtime.base.errors import DsrError
from runtime.gguf.card import ModelCard
from runtime.gguf.metadata import Metadata

PREFIX = "dsr.pruned."


@dataclass(frozen=True, slots=True)
class KeptExperts:
    """The experts that a pruned file keeps. `kept` has them by layer, numbered as in the original model.

    The original has `experts` per layer and uses `active_before` for each token. The experts were ranked by `score` on
    the profiles of `tasks`; `profiles` are the digests of these profiles. `grouping` says in words what happened to
    the groups of experts, "" without groups. `lost_weight` is the share of the routing weight that the removed experts
    had on these tasks, as a mean over the layers. All tasks have the same weight.
    """

    experts: int
    kept: Mapping[int, tuple[int, ...]]
    active_before: int
    tasks: tuple[str, ...]
    profiles: tuple[str, ...]
    score: str
    grouping: str
    lost_weight: float

    @property
    def keep(self) -> int:
        """The number of experts in each layer of the pruned file."""
        return len(next(iter(self.kept.values())))

    def entries(self) -> tuple[KeyValue, ...]:
        """The keys to write."""
        return (
            writer.u32(f"{PREFIX}experts", self.experts),
            writer.u32(f"{PREFIX}active", self.active_before),
            writer.i32s(f"{PREFIX}layers", tuple(self.kept)),
            writer.i32s(f"{PREFIX}kept", [expert for kept in self.kept.values() for expert in kept]),
            writer.texts(f"{PREFIX}tasks", [task.encode() for task in self.tasks]),
            writer.texts(f"{PREFIX}profiles", [profile.encode() for profile in self.profiles]),
            writer.text(f"{PREFIX}score", self.score),
            writer.text(f"{PREFIX}grouping", self.grouping),
            writer.f32(f"{PREFIX}lost", self.lost_weight),
        )


def read_kept_experts(card: ModelCard) -> KeptExperts | None:
    """None for a model that was not pruned, and for keys that contradict the model."""
    metadata = Metadata(card.path, card.metadata, card.architecture)
    if metadata.get(f"{PREFIX}experts") is None:
        return None
    try:
        found = _read(metadata)
    except DsrError:
        return None
    each = {len(set(kept)) for kept in found.kept.values()} | {card.experts}
    sound = each == {card.experts} and all(0 <= n < found.experts for kept in found.kept.values() for n in kept)
    return found if sound and found.kept else None


def _read(metadata: Metadata) -> KeptExperts:
    layers = _numbers(metadata, "layers")
    kept = _numbers(metadata, "kept")
    each = len(kept) // len(layers) if layers else 0
    return KeptExperts(
        experts=metadata.integer(f"{PREFIX}experts"),
        kept={layer: kept[n * each : (n + 1) * each] for n, layer in enumerate(layers)},
        active_before=metadata.integer(f"{PREFIX}active"),
        tasks=_texts(metadata, "tasks"),
        profiles=_texts(metadata, "profiles"),
        score=metadata.text(f"{PREFIX}score") or "",
        grouping=metadata.text(f"{PREFIX}grouping") or "",
        lost_weight=metadata.number(f"{PREFIX}lost") or 0.0,
    )


def _numbers(metadata: Metadata, name: str) -> tuple[int, ...]:
    listed = metadata.array(PREFIX + name, ("i32",))
    return tuple(int(number) for number in listed.numbers()) if listed else ()


def _texts(metadata: Metadata, name: str) -> tuple[str, ...]:
    listed = metadata.array(PREFIX + name, ("str",))
    return listed.strings() if listed else ()
