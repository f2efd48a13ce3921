"""Processes that get a part of a core only: by a control group where that is permitted, else beside a competitor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PERIOD = 3000  # microseconds; a short one, so that a worker that waits between its turns cannot save up for them
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


class Limit:
    """Processes that are added share so much of one core, or one core with a process that never rests."""

    def __init__(self, group: Path | None, core: int, words: str) -> None:
        self._group, self._core, self.words = group, core, words

    def add(self, pid: int) -> None:
        if self._group is not None:
            (self._group / "cgroup.procs").write_text(str(pid))
        elif sys.platform == "linux":
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(task.name), {self._core})


@contextmanager
def limited(share: float) -> Iterator[Limit]:
    """A limit to `share` of a core; where no control group can be made it is what a competitor leaves, about half."""
    group = _group(share)
    core = max(os.sched_getaffinity(0)) if sys.platform == "linux" else 0
    if group is not None:
        try:
            yield Limit(group, core, f"{share:.0%} of a core, by {group}")
        finally:
            with suppress(OSError):
                group.rmdir()  # empty only once its processes have ended
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as competitor:
        limit = Limit(None, core, f"core {core}, shared with a busy competitor")
        try:
            limit.add(competitor.pid)
            yield limit
        finally:
            competitor.kill()


def _group(share: float) -> Path | None:
    """A new control group with a quota; None where that is not permitted."""
    name, quota = f"dsr-{os.getpid()}", round(_PERIOD * share)
    for root, settings in (
        (_V1, {"cpu.cfs_period_us": f"{_PERIOD}", "cpu.cfs_quota_us": f"{quota}"}),
        (_V2, {"cpu.max": f"{quota} {_PERIOD}"}),
    ):
        group = root / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for setting, value in settings.items():
                (group / setting).write_text(value)
            return group
        except OSError:
            with suppress(OSError):
                group.rmdir()
    return None
