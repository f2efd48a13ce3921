"""Which models leave so that another one has room. Pure: it decides, and the pool obeys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.base.types import ByteCount

# Of the whole memory, models take at most this share together: the pages of a mapped file count as available, so that
# the system's figure alone would let in one model too many.
SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of this machine: all of them, and those that a program could take now."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that is open. `used` is when it last answered, in seconds of any clock; `busy`: it answers now."""

    name: str
    memory: int
    used: float
    busy: bool


@dataclass(frozen=True, slots=True)
class Room:
    """What to do for a model that wants in: these leave first; `wait`: until one that is busy has answered."""

    leave: tuple[str, ...] = ()
    wait: bool = False
    reason: str = ""


def make_room(need: int, memory: Memory, residents: Sequence[Resident], most_models: int) -> Room:
    """How a model of `need` bytes gets room. The one unused for longest leaves first, never a busy one.

    A model that is larger than all memory gets in once it is alone: the engine then reads it from the disk.
    """
    staying = sorted(residents, key=lambda each: each.used)
    leaving: list[Resident] = []
    while (short := _short(need, memory, staying, leaving, most_models)) and staying:
        gone = next((each for each in staying if not each.busy), None)
        if gone is None:
            return Room((), True, short)
        staying.remove(gone)
        leaving.append(gone)
    return Room(tuple(each.name for each in leaving), False, short)


def _short(
    need: int, memory: Memory, staying: Sequence[Resident], leaving: Sequence[Resident], most_models: int
) -> str:
    """Why there is no room next to those that stay; empty where there is."""
    if len(staying) >= most_models:
        return f"{len(staying)} models are open, and --max-models is {most_models}"
    by_system = memory.available + sum(each.memory for each in leaving)
    by_sum = int(memory.total * SHARE) - sum(each.memory for each in staying)
    free = min(by_system, by_sum)
    return f"it needs {ByteCount(need)}, and {ByteCount(max(0, free))} are free" if free < need else ""
