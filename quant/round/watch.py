"""How long work tells how much of it is done, and learns that it should end."""

from __future__ import annotations

from collections.abc import Callable

# Called every second or more often with the share that is done, 0 to 1. It raises to end the work.
Watch = Callable[[float], None]


def unwatched(share: float) -> None:
    """For work that nobody watches."""


def part(watch: Watch, begin: float, end: float) -> Watch:
    """The watch of a part of the work, which is done from share `begin` to share `end`."""
    return lambda share: watch(begin + share * (end - begin))
