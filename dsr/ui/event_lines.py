"""Library events as lines of JSON on stdout, for --jsonl: one object for each event, and the result as the last one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from dsr.ui.streams import write_out
from runtime.base.events import Event, Notice, Progress
from runtime.base.texts import json_text

SCHEMA = "dsr.event/1"
_OFTEN = 1.0  # seconds between two lines about the same work


def event_line(kind: str, **values: Any) -> str:
    """One event as a line."""
    return json_text({"schema": SCHEMA, "event": kind, **values}) + "\n"


class EventLines:
    """A listener that writes a line for each notice, and for the begin, each second and the end of each job."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str], float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            write_out(event_line("notice", text=event.text))
        elif isinstance(event, Progress) and self._is_due(event):
            total = event.total or None
            facts = {"job": event.job, "item": event.item, "done": event.done, "total": total, "unit": event.unit}
            write_out(event_line("progress", **facts, finished=event.finished))

    def _is_due(self, event: Progress) -> bool:
        key, now = (event.job, event.item), self._now()
        with self._lock:
            if event.finished:
                self._written.pop(key, None)
                return True
            if now - self._written.get(key, -_OFTEN) < _OFTEN:
                return False
            self._written[key] = now
            return True
