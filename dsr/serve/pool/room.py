"""Which models leave so that another one has room. Pure: it decides, and the pool obeys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


def make_room(need: int, free: int, residents: Sequence[Resident], most_models: int) -> Room:
    """How `need` bytes get room where `free` bytes are free. The one unused for longest leaves first, never a busy one.

    A model that is larger than all memory gets in once it is alone: the engine then reads it from the disk.
    """
    idle = sorted((each for each in residents if not each.busy), key=lambda each: each.used)
    busy = [each for each in residents if each.busy]
    leaving: list[str] = []
    count = len(residents)
    while idle and (count >= most_models or free < need):
        gone = idle.pop(0)
        leaving.append(gone.name)
        free += gone.memory
        count -= 1
    if count >= most_models:
        return Room((), True, f"{count} of {most_models} models are answering")
    if free < need and busy:
        return Room((), True, "the models that are answering take the memory")
    return Room(tuple(leaving))
