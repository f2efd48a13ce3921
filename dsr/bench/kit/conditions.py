"""The conditions of a measurement: other work on the machine, a host that takes the processor away, throttling."""

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

# Shares of the processor beyond which figures are doubtful.
_MUCH_LOAD = 0.1
_MUCH_STOLEN = 0.02


@dataclass(slots=True)
class Watch:
    """Load of the machine during a `watching` block; all 0 before its end.

    `load`: the share of all cores that other processes of this system took; `stolen`: the share that the host of a
    virtual machine kept; `throttled`: how often a core was slowed down because of its heat, where the system counts it.
    """

    host: Host
    load: float = 0.0
    stolen: float = 0.0
    throttled: int = 0
    _begun: _Clock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._begun = _Clock.now()

    def end(self) -> None:
        begun, now = self._begun, _Clock.now()
        offered = max(now.wall - begun.wall, 1e-9) * (os.cpu_count() or 1)
        busy, own = now.busy - begun.busy, now.own - begun.own
        self.load = min(1.0, max(0.0, (busy - own) / offered))
        self.stolen = min(1.0, max(0.0, (now.stolen - begun.stolen) / offered))
        self.throttled = max(0, now.throttled - begun.throttled)

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
    """Returns in words what makes figures doubtful, or ""."""
    reasons = []
    if load > _MUCH_LOAD:
        reasons.append(f"other work took {load:.0%} of the processor")
    if stolen > _MUCH_STOLEN:
        reasons.append(f"the host took {stolen:.0%} of it away")
    if throttled:
        reasons.append(f"cores were slowed down by heat {throttled} times")
    return ", ".join(reasons)


@contextmanager
def watching(host: Host) -> Iterator[Watch]:
    """Watch this machine for the length of the block."""
    watch = Watch(host)
    try:
        yield watch
    finally:
        watch.end()


@dataclass(frozen=True, slots=True)
class _Clock:
    """Seconds: of the wall, of all cores at work, of this process and its ended children, kept by the host."""

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
