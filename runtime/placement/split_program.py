"""The split of a pipeline as a program: numbers in, numbers out.

The layers pass through *stages* in a fixed order, each stage holding a range of them. A stage draws on the memory of
one *pool* (a device), and one that leaves routed experts at home on that of pool 0 as well. As in Halda (arXiv
2504.08791) the sum of all seconds is made small under limits of memory, and what a disk reloads is part of the sum;
where Halda counts layers of one size, here every layer has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """One way of holding layers; all by layer. `pinned` of the `own` bytes are cache, which no file backs. `home` are
    bytes of routed experts in pool 0; where the stage is of pool 0 itself, they are part of `own`."""

    pool: int
    seconds: Sequence[float]
    own: Sequence[int]
    pinned: Sequence[int]
    home: Sequence[int]


@dataclass(frozen=True, slots=True)
class Pool:
    """`memory` in bytes. `use` and `use_seconds` are paid once, where anything is held at all; the head's on top.
    Pool 0 is always used."""

    memory: int
    use: int
    use_seconds: float
    head: int
    head_seconds: float


@dataclass(frozen=True, slots=True)
class Reload:
    """What a byte too many in pool 0 costs per step, in seconds: of routed experts, and of what every token meets."""

    routed: float
    always: float


@dataclass(frozen=True, slots=True)
class Program:
    """`stages` in the order of the layers, those of a pool together, those of pool 0 first. `pinned` of pool 0's `use`
    no file backs. Without `reload` all must be in memory."""

    stages: tuple[Stage, ...]
    pools: tuple[Pool, ...]
    pinned: int
    reload: Reload | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """`starts`: by stage the first layer it holds, and the number of layers at the end."""

    starts: tuple[int, ...]
    head: int
    value: float


def alone(program: Program) -> Solution | None:
    """With one device there is nothing to decide, and nothing to load a solver for."""
    stage, pool = program.stages[0], program.pools[0]
    if alone_lacking(program):
        return None
    seconds = sum(stage.seconds) + pool.use_seconds + pool.head_seconds
    excess = max(0, pool.use + pool.head + sum(stage.own) - pool.memory)
    if excess and program.reload:
        routed = min(excess, sum(stage.home))
        seconds += routed * program.reload.routed + (excess - routed) * program.reload.always
    return Solution((0, len(stage.own)), 0, seconds)


def alone_lacking(program: Program) -> int:
    stage, pool = program.stages[0], program.pools[0]
    if program.reload:
        return max(0, program.pinned + sum(stage.pinned) - pool.memory)
    return max(0, pool.use + pool.head + sum(stage.own) - pool.memory)
