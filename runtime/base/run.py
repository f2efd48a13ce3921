"""One piece of long work: how it is stopped, who hears of it, how many threads it may use."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.base.errors import UsageError
from runtime.base.events import Listener, ignore

# GGML_MAX_N_THREADS (ggml.h): the engine ends the process where the system cannot start as many threads as it asks for.
MOST_THREADS = 512


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
    quantizing. Raises UsageError for a number that no machine has.
    """

    stop: Stop = field(default_factory=Stop)
    listen: Listener = ignore
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"between 1 and {MOST_THREADS} threads can be used, not {self.threads}")
