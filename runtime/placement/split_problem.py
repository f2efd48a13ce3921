"""The split of a pipeline as an optimization problem in plain numbers.

The layers pass through *stages* in a fixed order, and each stage holds a range of them. A stage takes memory of one
*pool* (a device). A stage without its routed experts also takes memory of pool 0, which holds these. As in Halda (arXiv
2504.08791) the sum of all seconds is minimized under limits of memory, and reading from a disk is part of the sum.
Halda has layers of one size; here each layer has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """One way to hold layers, with a number for each layer.

    `held` are the bytes in the stage's pool, `pinned` those of them that are cache and cannot be read from a file
    again. `pool0` are the bytes of routed experts in pool 0; for a stage of pool 0 they are part of `held`.
    """

    pool: int
    seconds: Sequence[float]
    held: Sequence[int]
    pinned: Sequence[int]
    pool0: Sequence[int]


@dataclass(frozen=True, slots=True)
class Pool:
    """A device with `memory` in bytes. `fixed` and `fixed_seconds` count once if it holds anything; the head adds more.

    Pool 0 is always used.
    """

    memory: int
    fixed: int
    fixed_seconds: float
    head: int
    head_seconds: float


@dataclass(frozen=True, slots=True)
class Reload:
    """Seconds per step for each byte that pool 0 lacks: of routed experts, and of weights that every token uses."""

    routed: float
    always: float


@dataclass(frozen=True, slots=True)
class SplitProblem:
    """`stages` in the order of the layers, grouped by pool, those of pool 0 first. `pinned` are the bytes of pool 0's
    `fixed` that cannot be read from a file. Without `reload` everything must fit into memory."""

    stages: tuple[Stage, ...]
    pools: tuple[Pool, ...]
    pinned: int
    reload: Reload | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """`starts` has the first layer of each stage and ends with the number of layers. `head` is the pool of the head."""

    starts: tuple[int, ...]
    head: int
    value: float


def solve_single(problem: SplitProblem) -> Solution | None:
    """The solution for a single stage, where nothing is to be decided; None if it does not fit."""
    stage, pool = problem.stages[0], problem.pools[0]
    if missing_memory_single(problem):
        return None
    seconds = sum(stage.seconds) + pool.fixed_seconds + pool.head_seconds
    excess = max(0, pool.fixed + pool.head + sum(stage.held) - pool.memory)
    if excess and problem.reload:
        routed = min(excess, sum(stage.pool0))
        seconds += routed * problem.reload.routed + (excess - routed) * problem.reload.always
    return Solution((0, len(stage.held)), 0, seconds)


def missing_memory_single(problem: SplitProblem) -> int:
    """The bytes that the pool of a single stage lacks; 0 if it fits."""
    stage, pool = problem.stages[0], problem.pools[0]
    if problem.reload:
        return max(0, problem.pinned + sum(stage.pinned) - pool.memory)
    return max(0, pool.fixed + pool.head + sum(stage.held) - pool.memory)
