"""`python -m dsr.serve.own.pull_process NAME`: a pull that tells its progress as JSON lines on stdout.

{"type": "plan", "size", "missing", "free", "files"}, then {"type": "progress", "done", "total", "item"} and
{"type": "notice", "text"}, at last {"type": "pulled", "path"} or {"type": "failed", "message", "hint"}.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from dsr.hub.client import from_environment
from dsr.hub.pull import PullRequest, check_space, download, plan
from dsr.models.references import parse
from runtime.base.errors import DsrError
from runtime.base.events import Event, Notice, Progress
from runtime.machine.host import probe
from runtime.machine.machine import usable

_OFTEN = 0.2  # seconds between two lines of progress


def main() -> None:
    try:
        _pull(sys.argv[1])
    except DsrError as error:
        _tell({"type": "failed", "message": error.message, "hint": error.hint})


def _pull(name: str) -> None:
    listen = _Listener().listen
    hub = from_environment(listen)
    planned = plan(PullRequest(parse(name)), hub, usable(probe().memory_available), listen)
    files = [each.path for each in planned.files]
    sizes = {"size": int(planned.size), "missing": int(planned.missing), "free": int(planned.free)}
    _tell({"type": "plan", **sizes, "files": files, "repo": planned.repo, "why": planned.why})
    check_space(planned)
    download(planned, hub, listen)
    _tell({"type": "pulled", "path": planned.main_file.name, "size": int(planned.size)})


class _Listener:
    """Tells progress, but not more often than a person sees."""

    def __init__(self) -> None:
        self._last = 0.0

    def listen(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Notice):
            _tell({"type": "notice", "text": event.text})
        elif isinstance(event, Progress) and (event.finished or now - self._last >= _OFTEN):
            self._last = now
            facts = {"job": event.job, "item": event.item, "done": event.done, "total": event.total}
            _tell({"type": "progress", **facts, "unit": event.unit})


def _tell(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
