"""The pipes to the server: what comes in, and what goes out, one write for each step of the engine."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, BinaryIO

from dsr.serve import frames
from dsr.serve.told import Told, wire
from runtime.engine.standing import Standing
from runtime.from_disk.use import DiskUse

# What another thread wants done in the thread of the engine.
Action = Callable[[], None]


class Channel:
    """Reads and writes frames in threads of its own, once it is started. `on_end` is called when the server is gone.

    `tell` may be called from any thread. `flush` sends what was told, from the thread of the engine, which computes the
    next step meanwhile. A server that is gone gets nothing more.
    """

    def __init__(self, incoming: BinaryIO, outgoing: int, handle: Callable[[dict[str, Any]], None], on_end: Action):
        self._incoming = incoming
        self._outgoing = outgoing
        self._handle = handle
        self._on_end = on_end
        self._actions: SimpleQueue[Action] = SimpleQueue()
        self._told: deque[list[Any]] = deque()
        self._sending: SimpleQueue[list[list[Any]] | None] = SimpleQueue()
        self._writing = threading.Thread(target=self._write, daemon=True)

    def start(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        self._writing.start()

    def close(self) -> None:
        """Wait until all that was flushed is written."""
        self._sending.put(None)
        self._writing.join()

    def _read(self) -> None:
        try:
            while (message := frames.read_frame(self._incoming)) is not None:
                self._handle(message)
        finally:
            self._on_end()

    def do(self, action: Action) -> None:
        """Let the thread of the engine do something before its next step."""
        self._actions.put(action)

    def next_action(self, *, wait: bool) -> Action | None:
        """The next action; None without one, unless it `wait`s for it."""
        if not wait and self._actions.empty():
            return None
        return self._actions.get()

    def tell(self, number: int, told: Told) -> None:
        """Tell something of the ask of this number."""
        self._told.append([number, *wire(told)])

    def tell_standing(self, standing: Standing) -> None:
        self._told.append([frames.STANDING, *standing])

    def tell_disk(self, use: DiskUse) -> None:
        self._told.append([frames.DISK, dict(use.as_json())])

    def flush(self) -> None:
        """Send all that was told."""
        rows = []
        while self._told:
            rows.append(self._told.popleft())
        if rows:
            self._sending.put(rows)

    def _write(self) -> None:
        while (rows := self._sending.get()) is not None:
            data = memoryview(frames.packed(rows))
            try:
                while data:
                    data = data[os.write(self._outgoing, data) :]
            except BrokenPipeError:  # the server is gone, which the reading thread sees, too
                return
