"""What a bench of experts compares: for each task, how many experts are kept, and who says which."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from quant.experts import RANDOM, PrunePlan, at_random, kept_number, plan
from quant.profiles import Profile
from runtime.card import ModelCard

# "own": the task's profile; "merged": that of all tasks; "other": that of another task, to see what a wrong choice
# costs; "random": by lot. Experts that are all kept are the task's "own".
Kind = Literal["own", "merged", "other", "random"]
KINDS: tuple[Kind, ...] = ("own", "merged", "other", "random")
RANDOM_SEEDS = 3


@dataclass(frozen=True, slots=True)
class Cell:
    """One task with some experts. `keep` is what was asked for; `seed` of those that were kept at random."""

    task: str
    keep: str
    kind: Kind
    score: str
    plan: PrunePlan
    seed: int | None = None

    @property
    def line(self) -> tuple[str, str, str]:
        """Cells with the same are one line of the table, over tasks and seeds."""
        return self.score, self.keep, self.kind


def cells(
    card: ModelCard,
    profiles: Mapping[str, Profile],
    keeps: Sequence[str],
    auto: Mapping[tuple[str, str], int],
    scores: Sequence[str],
    kinds: Sequence[Kind],
    seed: int,
) -> Iterator[Cell]:
    """All that is to be measured, line after line. `auto` has the number for each score and task, and for each score
    and "" that for all tasks together. Another task's and random experts are as many as the task's own."""
    tasks, whole = list(profiles), set[str]()
    for score in scores:
        for keep in keeps:
            wanted = {task: number_of(keep, card, auto, score, task) for task in ("", *tasks)}
            if min(wanted.values()) == card.experts:
                # All experts are the same whoever ranks them: once is enough.
                for task in () if keep in whole else tasks:
                    yield Cell(task, keep, "own", score, plan(card, [profiles[task]], card.experts, score))
                whole.add(keep)
                continue
            for kind in kinds:
                for number, task in enumerate(tasks):
                    if kind == "own":
                        yield Cell(task, keep, kind, score, plan(card, [profiles[task]], wanted[task], score))
                    elif kind == "merged":
                        yield Cell(task, keep, kind, score, plan(card, [*profiles.values()], wanted[""], score))
                    elif kind == "other":
                        other = tasks[(number + len(tasks) // 2) % len(tasks)]
                        yield Cell(task, keep, kind, score, plan(card, [profiles[other]], wanted[task], score))
                    else:
                        for lot in range(seed, seed + RANDOM_SEEDS):
                            yield Cell(task, keep, kind, RANDOM, at_random(card, wanted[task], lot), lot)


def number_of(keep: str, card: ModelCard, auto: Mapping[tuple[str, str], int], score: str, task: str) -> int:
    return auto[score, task] if keep == "auto" else kept_number(keep, card.experts)


def digest(plan: PrunePlan) -> str:
    """The same for plans that leave the same model."""
    kept = sorted((layer, tuple(numbers)) for layer, numbers in plan.kept.items())
    return hashlib.sha256(f"{kept} {plan.active} {plan.groups}".encode()).hexdigest()[:16]
