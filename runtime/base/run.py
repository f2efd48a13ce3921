"""One piece of long work: how it is stopped, who hears of it, how many threads it may use."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.base.events import Listener, ignore


class Stop:
    """A request to stop that a signal handler sets and native code checks while it loads or decodes."""

    def __init__(self) -> None:
        self.wanted = False

    def set(self) -> None:
        self.wanted = True

    def take(self) -> bool:
        """Whether a stop is wanted; the request is cleared."""
        wanted, self.wanted = self.wanted, False
        return wanted


@dataclass(frozen=True, slots=True)
class Run:
    """Passed as one to everything that takes longer than a moment.

    `threads` None leaves the number of CPU threads to the callee: the measured best for a loaded model, all cores for
    quantizing.
    """

    stop: Stop = field(default_factory=Stop)
    listen: Listener = ignore
    threads: int | None = None
