"""Downloads several files over several connections, verifies them on the way, and gives them their names.

The caller's thread opens files, judges how many connections are worth it (growth.py), and sends all events. Each
connection is a thread with a client of its own. One more thread computes the digests of what came. Nothing is kept in
memory but the blocks that are being received.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from dsr.hub.growth import Growth
from dsr.hub.http import Client, RetryPolicy, Transient, connecting
from dsr.hub.ranges import Part
from dsr.hub.transfer import Download, WrongContent
from runtime.base.events import Event, Listener, Progress

_TICK = 0.05  # seconds between two looks at the whole
_SECONDS_BETWEEN_EVENTS = 0.1
_SECONDS_IDLE = 0.5  # a connection stays open so long for the next file
_SECONDS_TO_LEAVE = 1.0

Finish = Callable[[Download], None]
# A file is opened for the download, or another program has it now, or it has come meanwhile.
LOCKED: Final = "locked"
HERE: Final = "here"
Begun = Download | Literal["locked", "here"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file of `size` bytes, of which `here` are here, before it is opened."""

    begin: Callable[[Listener], Begun]
    size: int
    here: int


class Connections:
    """The download of several `files`, in this order; `finish` gets each verified one."""

    def __init__(self, files: Sequence[Waiting], finish: Finish, policy: RetryPolicy, listen: Listener) -> None:
        self._waiting = deque(files)
        self._all = f"all {len(files)} files" if len(files) > 1 else ""
        self._total = sum(file.size for file in files)
        self._finish = finish
        self._policy = policy
        self._listen = listen
        self._growth = Growth()
        self._events: deque[Event] = deque()  # of other threads; the caller's one sends them
        self._lock = threading.Condition()  # guards the rest
        self._open: list[Download] = []
        self._finished = 0  # bytes of the files that are done
        self._active = self._busy = 0  # connections, and those that fetch a part
        self._stopped = False
        self._error: BaseException | None = None
        self._reported_at = 0.0

    def run(self) -> None:
        """Download all files. Raises the first error of any connection; what came stays for the next pull."""
        verifier = threading.Thread(target=self._verify, daemon=True)
        verifier.start()
        try:
            while self._waiting or self._open:
                self._open_next()
                self._finish_verified()
                self._send_events()
                with self._lock:
                    if self._error is not None:
                        raise self._error
                    self._growth.observe(time.monotonic(), self._received(), self._busy)
                    self._start_connections()
                    if self._open:
                        self._lock.wait(_TICK)
        finally:
            with self._lock:
                self._stopped = True
                self._lock.notify_all()
            for download in self._open:
                with suppress(OSError):  # the records before the last one are still there
                    download.out.close()
            verifier.join(_SECONDS_TO_LEAVE)
            self._send_events(progress=False)

    def _open_next(self) -> None:
        """Open the next file if a new connection would find nothing to begin."""
        if self._waiting and not any(each.can_begin for each in self._open):
            begun = self._waiting[0].begin(self._events.append)
            if begun == LOCKED:
                return
            with self._lock:
                waited = self._waiting.popleft()
                if isinstance(begun, Download):
                    self._open.append(begun)
                else:
                    self._finished += waited.size
                self._lock.notify_all()
            if isinstance(begun, Download):
                self._report(begun)

    def _finish_verified(self) -> None:
        for download in tuple(self._open):
            digest = download.out.digest()
            if digest is None:
                continue
            try:
                download.check(digest)
            except WrongContent as wrong:
                download.wrong(wrong)
                continue
            self._report(download)
            self._finish(download)
            with self._lock:
                self._open.remove(download)
                self._finished += download.file.size
            self._report_all()

    def _received(self) -> int:
        waiting = sum(file.here for file in self._waiting)
        return self._finished + sum(each.out.received for each in self._open) + waiting

    def _send_events(self, *, progress: bool = True) -> None:
        while self._events:
            self._listen(self._events.popleft())
        now = time.monotonic()
        if progress and now - self._reported_at >= _SECONDS_BETWEEN_EVENTS:
            self._reported_at = now
            for download in self._open:
                self._report(download)
            self._report_all()

    def _report_all(self) -> None:
        if self._all:
            self._listen(Progress("downloading", self._all, self._received(), self._total, "bytes"))

    def _report(self, download: Download) -> None:
        file, received = download.file, download.out.received
        self._listen(Progress("downloading", file.name, received, file.size, "bytes"))
        if received == file.size > 0:
            self._listen(Progress("verifying", file.name, download.out.verified, file.size, "bytes"))

    def _start_connections(self) -> None:
        while self._active < self._growth.limit and (task := self._task()) is not None:
            self._active += 1
            self._busy += 1
            threading.Thread(target=self._work, args=task, daemon=True).start()

    def _task(self) -> tuple[Download, Part] | None:
        """A part to fetch: the next one, else half of another connection's."""
        for steal in (False, True) if not self._waiting else (False,):
            for download in self._open:
                if (part := download.take(steal=steal)) is not None:
                    return download, part
        return None

    def _work(self, download: Download, part: Part) -> None:
        """One connection: fetches parts until there is none, or one connection less is wanted."""
        left = False

        def leaves() -> bool:
            nonlocal left
            if self._active > self._growth.limit and not left:
                with self._lock:
                    left = self._active > self._growth.limit
                    self._active -= left
            return left or self._stopped

        task: tuple[Download, Part] | None = (download, part)
        try:
            with Client(self._policy) as client:
                while task is not None:
                    failure = self._fetch(client, *task, leaves)
                    if failure is not None and not self._stays_after(failure, task[0]):
                        break
                    task = self._next_task(leaves)
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
        finally:
            with self._lock:
                self._active -= not left
                self._lock.notify_all()

    def _fetch(self, client: Client, download: Download, part: Part, leaves: Callable[[], bool]) -> Transient | None:
        """Fetch a part; the failure after which another try makes sense."""
        try:
            with connecting(self._policy):
                download.fetch(client, part, lambda: self._growth.limit == 1, leaves)
        except Transient as failure:
            return failure
        except WrongContent as wrong:
            download.wrong(wrong)
        finally:
            download.out.end(part)
            with self._lock:
                self._busy -= 1
                self._lock.notify_all()
        return None

    def _stays_after(self, failure: Transient, download: Download) -> bool:
        """False where others work: they go on without this connection. The last one waits, and tries again."""
        now = time.monotonic()
        with self._lock:
            if self._busy:
                if failure.busy:
                    self._growth.refused(now, self._active)
                else:
                    self._growth.lost(now)
                return False
            self._growth.alone(now)
        download.wait_after(failure)
        return True

    def _next_task(self, leaves: Callable[[], bool]) -> tuple[Download, Part] | None:
        """The next part for a connection that is done with one; None if it should end."""
        end = time.monotonic() + _SECONDS_IDLE
        while not leaves():
            with self._lock:
                if (task := self._task()) is not None:
                    self._busy += 1
                    return task
                if (rest := end - time.monotonic()) <= 0:
                    return None
                self._lock.wait(rest)
        return None

    def _verify(self) -> None:
        """Computes the digests of what came, as far as no byte is missing."""
        try:
            while not self._stopped:
                if not any(each.out.verify_more() for each in tuple(self._open)):
                    with self._lock:
                        self._lock.notify_all()
                        self._lock.wait(_TICK)
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
