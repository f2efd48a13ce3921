"""The conditions of a measurement: load by other processes, time that the host of a VM took, throttling."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

from dsr import __version__
from dsr.store.measurement import Conditions
from runtime.machine.host import Host, processor_times, throttle_count

# Shares of the processor. Above them, figures are doubtful.
_MOST_LOAD = 0.1
_MOST_STOLEN = 0.02


@dataclass(slots=True)
class Watch:
    """Load of the machine during a `watching` block; all 0 before its end.

    `load`: the share of all cores that other processes used. `stolen`: the share that the host of a virtual machine
    used. `throttled`: how often heat slowed down a core, if the system counts it.
    """

    host: Host
    load: float = 0.0
    stolen: float = 0.0
    throttled: int = 0
    _start: _Clock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._start = _Clock.now()

    def end(self) -> None:
        start, now = self._start, _Clock.now()
        offered = max(now.wall - start.wall, 1e-9) * (os.cpu_count() or 1)
        busy, own = now.busy - start.busy, now.own - start.own
        self.load = min(1.0, max(0.0, (busy - own) / offered))
        self.stolen = min(1.0, max(0.0, (now.stolen - start.stolen) / offered))
        self.throttled = max(0, now.throttled - start.throttled)

    @property
    def conditions(self) -> Conditions:
        host = self.host
        return Conditions(
            processor=host.cpu,
            cores=host.cores,
            memory=host.memory_total,
            dsr=__version__,
            engine=version("llama-cpp-python"),
            load=round(self.load, 3),
            disturbed=disturbance(self.load, self.stolen, self.throttled),
        )


def disturbance(load: float, stolen: float, throttled: int) -> str:
    """Returns the reasons why figures are doubtful, as text; "" if there are none."""
    reasons = []
    if load > _MOST_LOAD:
        reasons.append(f"other work took {load:.0%} of the processor")
    if stolen > _MOST_STOLEN:
        reasons.append(f"the host of this virtual machine took {stolen:.0%} of the processor")
    if throttled:
        reasons.append(f"heat slowed down cores {throttled} times")
    return ", ".join(reasons)


@contextmanager
def watching(host: Host) -> Iterator[Watch]:
    """Watches the load of this machine during the block."""
    watch = Watch(host)
    try:
        yield watch
    finally:
        watch.end()


@dataclass(frozen=True, slots=True)
class _Clock:
    """Seconds: wall time, busy time of all cores, time of this process and its ended children, time of the host."""

    wall: float
    busy: float
    own: float
    stolen: float
    throttled: int

    @classmethod
    def now(cls) -> _Clock:
        times, own = processor_times(), os.times()
        return cls(
            wall=time.monotonic(),
            busy=times.busy,
            own=own.user + own.system + own.children_user + own.children_system,
            stolen=times.stolen,
            throttled=throttle_count(),
        )
