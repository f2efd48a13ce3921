"""The conditions of a measurement: load by other processes, time that the host of a VM took, throttling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

from dsr import __version__
from dsr.store.measurement import Conditions
from runtime.machine.host import Host
from runtime.machine.other_work import OtherWork, WorkClock


@dataclass(slots=True)
class Watch:
    """Other work on the machine during a `watching` block; none before its end."""

    host: Host
    work: OtherWork = field(default_factory=OtherWork)
    _start: WorkClock = field(default_factory=WorkClock.now, init=False, repr=False)

    def end(self) -> None:
        self.work = self._start.until_now()

    @property
    def conditions(self) -> Conditions:
        host = self.host
        return Conditions(
            processor=host.cpu,
            cores=host.cores,
            memory=host.memory_total,
            dsr=__version__,
            engine=version("llama-cpp-python"),
            load=round(self.work.load, 3),
            disturbed=self.work.disturbance,
        )


@contextmanager
def watching(host: Host) -> Iterator[Watch]:
    """Watches the load of this machine during the block."""
    watch = Watch(host)
    try:
        yield watch
    finally:
        watch.end()
