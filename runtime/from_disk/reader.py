"""Threads that read parts of a model file straight into memory, without the page cache."""

from __future__ import annotations

import errno
import mmap
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Protocol

from runtime.base.errors import DiskFailed, DsrError, WeightsLost

# Bytes. Direct reads need an alignment of 4096 of offset, length and memory on all common disks. Memory moves and goes
# back in pages of the system, which are larger on some ARM machines.
PAGE = max(4096, mmap.PAGESIZE)
PATIENCE = 0.1  # seconds between looks at the stop flag
_PIECE = 1 << 20  # bytes of one read: a slow disk takes long for what is in flight when everything ends
_THREADS = 8  # reads in flight; an NVMe disk is at its full speed with 4 of 1 MB each
_AGAIN = "check the file and its disk, then open the model again"


@dataclass(frozen=True, slots=True)
class Span:
    """`length` bytes of a file from `offset`, of which `least` must exist, to `place` in memory. Multiples of PAGE."""

    file: int
    offset: int
    place: int
    length: int
    least: int


class ReadFile:
    """A model file that is open for reading past the system's cache. `check` raises WeightsLost once somebody changed
    it."""

    def __init__(self, path: Path, *, into_cache: bool = False) -> None:
        """`into_cache`: what is read stays in the system's cache. Raises DsrError if the file cannot be opened."""
        self.path, self._keeps = path, into_cache
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
        try:
            self._handle = os.open(path, flags)
        except OSError as error:
            raise DsrError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from error
        self._direct = False
        if not into_cache:
            self._ask_for_direct(True)
            with mmap.mmap(-1, PAGE) as page, suppress(OSError):
                self._read(page, 0)  # some file systems accept the wish and refuse the read
            if hasattr(os, "posix_fadvise"):  # without direct reads: no more than what is asked for
                os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_RANDOM)
        self._state = self._now()

    @property
    def handle(self) -> int:
        """The number of the open file."""
        return self._handle

    @property
    def direct(self) -> bool:
        """Whether reads go past the system's cache. Not every file system can do that."""
        return self._direct

    def read(self, memory: memoryview, span: Span, going: Callable[[], bool] = lambda: True) -> bool:
        """Fill `memory`, of `span.length` bytes. False if `going` was false before the end.

        Raises DiskFailed, or WeightsLost for a file that was cut."""
        done = 0
        try:
            while done < span.least:
                if not going():
                    return False
                with memory[done : done + _PIECE] as rest:
                    got = self._read(rest, span.offset + done)
                if got == 0:
                    raise WeightsLost(f"{self.path}: the file was cut while the model was running", hint=_AGAIN)
                done += got
            if not self._direct and not self._keeps and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._handle, span.offset, span.length, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise DiskFailed(f"{self.path}: the disk failed to read it: {error.strerror}", hint=_AGAIN) from error
        return True

    def check(self) -> None:
        if self._now() != self._state:
            raise WeightsLost(f"{self.path}: the file changed while the model was running", hint=_AGAIN)

    def close(self) -> None:
        os.close(self._handle)

    def _read(self, memory: memoryview | mmap.mmap, offset: int) -> int:
        try:
            return os.preadv(self._handle, [memory], offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
        self._ask_for_direct(False)  # this part of the file cannot be read directly
        return os.preadv(self._handle, [memory], offset)

    def _ask_for_direct(self, wanted: bool) -> None:
        try:
            import fcntl

            flags = fcntl.fcntl(self._handle, fcntl.F_GETFL)
            fcntl.fcntl(self._handle, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
        except (ImportError, AttributeError, OSError):  # a system or a file system without direct reads
            wanted = False
        self._direct = wanted

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns


class Reader(Protocol):
    """Reads needed units first, then expected ones.

    Only one thread may call it. A unit is named by its number."""

    @property
    def reading(self) -> set[int]:
        """Units that were asked for and are not in memory yet."""

    def ask(self, units: Sequence[tuple[int, Sequence[Span]]], *, now: bool) -> None:
        """Begin to read units that are not being read: `now`, or as soon as nothing else is to be read now."""

    def hurry(self, units: Collection[int]) -> None:
        """Read these units now, if they were only expected."""

    def cancel(self, units: Collection[int]) -> set[int]:
        """Forget expected units of which nothing was read yet. Returns them."""

    def look(self) -> None:
        """Note which units have come. Others may do so, too."""

    def wait(self, units: Collection[int], stop: Callable[[], bool]) -> bool:
        """Wait until `units` are read. False if `stop` became true before.

        Raises the first error of any read, also at each later call."""

    def close(self) -> None:
        """End; what is being read is read to its end."""


class ThreadedReader:
    """A Reader on any system: threads that read."""

    def __init__(self, files: Sequence[ReadFile], memory: memoryview) -> None:
        """`memory` is all of the reserved memory, of which each span names its place."""
        self._files, self._memory = files, memory
        self._changed = Condition()
        self._now: deque[tuple[int, Span]] = deque()
        self._later: deque[tuple[int, Span]] = deque()
        self._spans: dict[int, int] = {}
        self._left: dict[int, int] = {}  # spans of a unit that are not read yet
        self._reading: set[int] = set()
        self._failure: Exception | None = None
        self._open = True
        self._threads = [Thread(target=self._work, name=f"from-disk-{n}", daemon=True) for n in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    @property
    def reading(self) -> set[int]:
        return self._reading

    def ask(self, units: Sequence[tuple[int, Sequence[Span]]], *, now: bool) -> None:
        with self._changed:
            for unit, spans in units:
                self._left[unit] = self._spans[unit] = len(spans)
                self._reading.add(unit)
                (self._now if now else self._later).extend((unit, span) for span in spans)
            self._changed.notify_all()

    def hurry(self, units: Collection[int]) -> None:
        with self._changed:
            hurried = [each for each in self._later if each[0] in units]
            if hurried:
                self._later = deque(each for each in self._later if each[0] not in units)
                self._now.extend(hurried)

    def cancel(self, units: Collection[int]) -> set[int]:
        with self._changed:
            waiting = Counter(unit for unit, _ in self._later if unit in units)
            cancelled = {unit for unit, count in waiting.items() if count == self._spans[unit]}
            self._later = deque(each for each in self._later if each[0] not in cancelled)
            for unit in cancelled:
                del self._left[unit]
            self._reading -= cancelled
            return cancelled

    def look(self) -> None:
        """Nothing: the threads note it."""

    def wait(self, units: Collection[int], stop: Callable[[], bool]) -> bool:
        with self._changed:
            while self._failure is None and not self.reading.isdisjoint(units):
                if stop():
                    return False
                self._changed.wait(PATIENCE)
        if self._failure is not None:
            raise self._failure
        return True

    def close(self) -> None:
        """End the threads, behind the piece that each one is reading."""
        with self._changed:
            self._open = False
            self._now.clear()
            self._later.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            unit, span = job
            failure: Exception | None = None
            try:
                with self._memory[span.place : span.place + span.length] as part:
                    if not self._files[span.file].read(part, span, self._is_open):
                        return
            except Exception as error:  # also an unforeseen one: who waits would wait forever
                failure = error
            with self._changed:
                if failure is None:
                    self._left[unit] -= 1
                    if not self._left[unit]:
                        self._reading.discard(unit)
                else:  # the unit never counts as read, so that nobody computes with it
                    self._failure = self._failure or failure
                if not self._left[unit] or failure is not None:
                    self._changed.notify_all()

    def _is_open(self) -> bool:
        return self._open

    def _next(self) -> tuple[int, Span] | None:
        with self._changed:
            while self._open and not self._now and not self._later:
                self._changed.wait()
            if not self._open:
                return None
            return (self._now or self._later).popleft()
