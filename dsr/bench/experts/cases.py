"""The cases of `dsr bench experts`: for each task, how many experts are kept and how they are chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dsr.loading.options import AUTO
from quant.experts.profile import Profile
from quant.experts.prune_plan import RANDOM, PrunePlan, keep_count, plan_prune, plan_random
from runtime.gguf.card import ModelCard

# How experts are chosen. "own": by the task's profile; "merged": by the profiles of all tasks; "other": by the profile
# of another task, which shows the cost of a wrong choice; "random": at random. A case with all experts is "own".
Kind = Literal["own", "merged", "other", "random"]
KINDS: tuple[Kind, ...] = ("own", "merged", "other", "random")
RANDOM_SEEDS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One task with a choice of experts. `keep`: the number as requested. `seed`: of a random choice."""

    task: str
    keep: str
    kind: Kind
    score: str
    plan: PrunePlan
    seed: int | None = None

    @property
    def group(self) -> tuple[str, str, str]:
        """The key of a row of the table. A row has the cases of all tasks and seeds."""
        return self.score, self.keep, self.kind


# The number of experts that "auto" means, by (score, task). The task "" means all tasks together.
Automatic = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases of a bench: each of `keeps`, with each of `scores` and of `kinds`. `seed`: of the first random case."""

    card: ModelCard
    profiles: Mapping[str, Profile]
    keeps: Sequence[str]
    scores: Sequence[str]
    kinds: Sequence[Kind]
    seed: int

    def all(self, automatic: Automatic) -> Iterator[Case]:
        """Yields all cases, row after row. The kinds "other" and "random" keep as many experts as "own"."""
        unpruned = set[str]()
        for score in self.scores:
            for keep in self.keeps:
                if all(
                    self._number(keep, automatic, score, task) == self.card.experts for task in ("", *self.profiles)
                ):
                    # The ranking makes no difference to all experts, so this case is measured once.
                    for task in () if keep in unpruned else self.profiles:
                        yield from self._of(task, keep, "own", score, automatic)
                    unpruned.add(keep)
                    continue
                for kind in self.kinds:
                    for task in self.profiles:
                        yield from self._of(task, keep, kind, score, automatic)

    def of_task(self, task: str, automatic: Automatic) -> Iterator[Case]:
        """Yields the cases that a task can have for any automatic numbers of the other tasks."""
        for score in self.scores:
            for keep in self.keeps:
                for kind in self.kinds:
                    yield from self._of(task, keep, kind, score, automatic)

    def _of(self, task: str, keep: str, kind: Kind, score: str, automatic: Automatic) -> Iterator[Case]:
        number = self._number(keep, automatic, score, "" if kind == "merged" else task)
        if kind == "random":
            for seed in range(self.seed, self.seed + RANDOM_SEEDS):
                yield Case(task, keep, kind, RANDOM, plan_random(self.card, number, seed), seed)
        else:
            yield Case(task, keep, kind, score, plan_prune(self.card, self._ranking(task, kind), number, score))

    def _ranking(self, task: str, kind: Kind) -> list[Profile]:
        """Returns the profiles that rank the experts."""
        if kind == "merged":
            return [*self.profiles.values()]
        tasks = list(self.profiles)
        other = tasks[(tasks.index(task) + len(tasks) // 2) % len(tasks)]
        return [self.profiles[other if kind == "other" else task]]

    def _number(self, keep: str, automatic: Automatic, score: str, task: str) -> int:
        return automatic[score, task] if keep == AUTO else keep_count(keep, self.card.experts)


def digest(plan: PrunePlan) -> str:
    """Returns 16 hexadecimal digits, equal for plans with the same pruned model."""
    kept = sorted((layer, tuple(numbers)) for layer, numbers in plan.kept.items())
    return hashlib.sha256(f"{kept} {plan.active} {plan.groups}".encode()).hexdigest()[:16]
