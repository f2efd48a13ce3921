"""What else kept the machine busy while something was measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from runtime.machine.host import processor_times, throttle_count

# Shares of the processor. Above them, figures are doubtful.
_MOST_LOAD = 0.1
_MOST_STOLEN = 0.02


@dataclass(frozen=True, slots=True)
class OtherWork:
    """`load`: the share of all cores that other processes used. `stolen`: the share that the host of a virtual machine
    used. `throttled`: how often heat slowed down a core, if the system counts it.
    """

    load: float = 0.0
    stolen: float = 0.0
    throttled: int = 0

    @property
    def disturbance(self) -> str:
        """The reasons why figures are doubtful, as text; "" if there are none."""
        reasons = []
        if self.load > _MOST_LOAD:
            reasons.append(f"other work took {self.load:.0%} of the processor")
        if self.stolen > _MOST_STOLEN:
            reasons.append(f"the host of this virtual machine took {self.stolen:.0%} of the processor")
        if self.throttled:
            reasons.append(f"heat slowed down cores {self.throttled} times")
        return ", ".join(reasons)


@dataclass(frozen=True, slots=True)
class WorkClock:
    """Seconds: wall time, busy time of all cores, time of this process and its ended children, time of the host."""

    wall: float
    busy: float
    own: float
    stolen: float
    throttled: int

    @classmethod
    def now(cls) -> WorkClock:
        times, own = processor_times(), os.times()
        return cls(
            wall=time.monotonic(),
            busy=times.busy,
            own=own.user + own.system + own.children_user + own.children_system,
            stolen=times.stolen,
            throttled=throttle_count(),
        )

    def until_now(self) -> OtherWork:
        """The other work since this reading of the clock."""
        now = WorkClock.now()
        offered = max(now.wall - self.wall, 1e-9) * (os.cpu_count() or 1)
        busy, own = now.busy - self.busy, now.own - self.own
        return OtherWork(
            load=min(1.0, max(0.0, (busy - own) / offered)),
            stolen=min(1.0, max(0.0, (now.stolen - self.stolen) / offered)),
            throttled=max(0, now.throttled - self.throttled),
        )
