"""The cases of `dsr bench experts`: for each task, how many experts are kept, and how they are chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dsr.loading.options import AUTO
from quant.experts.profile import Profile
from quant.experts.prune_plan import RANDOM, PrunePlan, keep_count, plan_prune, plan_random
from runtime.gguf.card import ModelCard

# "own": the task's profile; "merged": that of all tasks; "other": that of another task, to see what a wrong choice
# costs; "random": at random. All experts together are the task's "own".
Kind = Literal["own", "merged", "other", "random"]
KINDS: tuple[Kind, ...] = ("own", "merged", "other", "random")
RANDOM_SEEDS = 3


@dataclass(frozen=True, slots=True)
class Case:
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


# How many experts "auto" is: for each score and task, and with "" for all tasks together.
Automatic = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Cases:
    """All that is compared: each of `keeps`, ranked by each of `scores` with the `profiles` of the tasks, in each of
    `kinds`; random experts from `seed` on."""

    card: ModelCard
    profiles: Mapping[str, Profile]
    keeps: Sequence[str]
    scores: Sequence[str]
    kinds: Sequence[Kind]
    seed: int

    def every(self, automatic: Automatic) -> Iterator[Case]:
        """All that is to be measured, line after line. Another task's and random experts are as many as the task's
        own."""
        unpruned = set[str]()
        for score in self.scores:
            for keep in self.keeps:
                if all(
                    self._number(keep, automatic, score, task) == self.card.experts for task in ("", *self.profiles)
                ):
                    # All experts are the same whoever ranks them: once is enough.
                    for task in () if keep in unpruned else self.profiles:
                        yield from self._of(task, keep, "own", score, automatic)
                    unpruned.add(keep)
                    continue
                for kind in self.kinds:
                    for task in self.profiles:
                        yield from self._of(task, keep, kind, score, automatic)

    def of_task(self, task: str, automatic: Automatic) -> Iterator[Case]:
        """Every cell that the task may have, whatever the other tasks' automatic numbers are."""
        for score in self.scores:
            for keep in self.keeps:
                for kind in self.kinds:
                    yield from self._of(task, keep, kind, score, automatic)

    def _of(self, task: str, keep: str, kind: Kind, score: str, automatic: Automatic) -> Iterator[Case]:
        number = self._number(keep, automatic, score, "" if kind == "merged" else task)
        if kind == "random":
            for lot in range(self.seed, self.seed + RANDOM_SEEDS):
                yield Case(task, keep, kind, RANDOM, plan_random(self.card, number, lot), lot)
        else:
            yield Case(task, keep, kind, score, plan_prune(self.card, self._ranking(task, kind), number, score))

    def _ranking(self, task: str, kind: Kind) -> list[Profile]:
        """The profiles that rank the experts."""
        if kind == "merged":
            return [*self.profiles.values()]
        tasks = list(self.profiles)
        other = tasks[(tasks.index(task) + len(tasks) // 2) % len(tasks)]
        return [self.profiles[other if kind == "other" else task]]

    def _number(self, keep: str, automatic: Automatic, score: str, task: str) -> int:
        return automatic[score, task] if keep == AUTO else keep_count(keep, self.card.experts)


def digest(plan: PrunePlan) -> str:
    """The same for plans that leave the same model."""
    kept = sorted((layer, tuple(numbers)) for layer, numbers in plan.kept.items())
    return hashlib.sha256(f"{kept} {plan.active} {plan.groups}".encode()).hexdigest()[:16]
