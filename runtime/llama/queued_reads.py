"""Reads parts of a model file through the queue of reads that Linux has (io_submit), without threads.

A token may need a hundred reads of a fraction of a millisecond. Python's threads would take turns at the interpreter
with the thread that computes, and that takes longer than the reads.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from runtime.base.errors import DsrError
from runtime.from_disk.reader import PATIENCE, ReadFile, Span

# io_setup, io_destroy, io_getevents, io_submit (asm/unistd.h of each kind of processor).
_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_DEPTH = 512  # reads in flight; the system allows 65,536 in all (fs.aio-max-nr)
_FLYING = 16 << 20  # bytes in flight: nothing can take them back, and a slow disk takes long for them
_GUESSES = 64  # reads in flight while guesses are begun: those of two layers of small experts
# struct iocb and struct io_event (linux/aio_abi.h). IOCB_CMD_PREAD is 0.
_REQUEST = struct.Struct("<Q 8x 2x 2x I Q Q q 16x")  # our number, file, memory, bytes, offset
_EVENT = struct.Struct("<Q 8x q 8x")  # our number, bytes or a negative errno


class NoQueue(DsrError):
    """The system has no queue of reads for these files."""


class QueuedReader:
    """A Reader for small parts: to begin a large one takes long."""

    def __init__(self, files: Sequence[ReadFile], memory: memoryview) -> None:
        """Raises NoQueue."""
        calls = _CALLS.get(platform.machine())
        if sys.platform != "linux" or calls is None or not all(file.direct for file in files):
            raise NoQueue("there is no queue of direct reads for these files")
        setup, self._destroy, self._get, self._submit = calls
        self._call: Any = ctypes.CDLL(None, use_errno=True)["syscall"]
        self._call.restype = ctypes.c_long
        context = ctypes.c_uint64(0)
        if self._call(ctypes.c_long(setup), ctypes.c_long(_DEPTH), ctypes.byref(context)) != 0:
            raise NoQueue(f"the system gives no queue of reads: {os.strerror(ctypes.get_errno())}")
        self._context = context
        self._files, self._memory = files, memory
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._requests = ctypes.create_string_buffer(_REQUEST.size * _DEPTH)
        first = ctypes.addressof(self._requests)
        self._places = (ctypes.c_uint64 * _DEPTH)(*range(first, first + _REQUEST.size * _DEPTH, _REQUEST.size))
        self._events = ctypes.create_string_buffer(_EVENT.size * _DEPTH)
        self._now: deque[tuple[int, Span]] = deque()
        self._later: deque[tuple[int, Span]] = deque()
        self._begun: dict[int, tuple[int, Span]] = {}  # by our number
        self._number = 0
        self._flying = 0  # bytes
        self._spans: dict[int, int] = {}
        self._left: dict[int, int] = {}  # spans of a unit that are not read yet
        self._reading: set[int] = set()
        self._failure: Exception | None = None

    @property
    def reading(self) -> set[int]:
        return self._reading

    def ask(self, units: Sequence[tuple[int, Sequence[Span]]], *, now: bool) -> None:
        queue = self._now if now else self._later
        for unit, spans in units:
            self._left[unit] = self._spans[unit] = len(spans)
            self._reading.add(unit)
            queue.extend((unit, span) for span in spans)
        self._begin()

    def hurry(self, units: Collection[int]) -> None:
        self._now.extend(each for each in self._later if each[0] in units)
        self._later = deque(each for each in self._later if each[0] not in units)
        self._begin()

    def cancel(self, units: Collection[int]) -> set[int]:
        waiting = Counter(unit for unit, _ in self._later if unit in units)
        cancelled = {unit for unit, count in waiting.items() if count == self._spans[unit]}
        self._later = deque(each for each in self._later if each[0] not in cancelled)
        self._reading -= cancelled
        return cancelled

    def look(self) -> None:
        if self._begun:
            self._collect(0)

    def wait(self, units: Collection[int], stop: Callable[[], bool]) -> bool:
        self.look()
        while self._failure is None and not self._reading.isdisjoint(units):
            if stop():
                return False
            self._begin()
            self._collect(1)
        if self._failure is not None:
            raise self._failure
        return True

    def close(self) -> None:
        """What is being read is read to its end."""
        self._call(ctypes.c_long(self._destroy), self._context)

    def _begin(self) -> None:
        """Begin as many reads as may be in flight: all that are needed now, and a few guesses."""
        batch: list[tuple[int, Span]] = []
        flying = len(self._begun)
        while flying + len(batch) < _DEPTH and self._flying < _FLYING:
            if self._now:
                batch.append(self._now.popleft())
            elif self._later and flying + len(batch) < _GUESSES:
                batch.append(self._later.popleft())
            else:
                break
            self._flying += batch[-1][1].length
        for place, (unit, span) in enumerate(batch):
            self._number += 1
            self._begun[self._number] = unit, span
            handle, address = self._files[span.file].handle, self._address + span.place
            request = self._number, handle, address, span.length, span.offset
            _REQUEST.pack_into(self._requests, place * _REQUEST.size, *request)
        done = 0
        while done < len(batch):
            count, first = ctypes.c_long(len(batch) - done), ctypes.byref(self._places, 8 * done)
            begun = self._call(ctypes.c_long(self._submit), self._context, count, first)
            if begun > 0:
                done += begun
            elif ctypes.get_errno() == errno.EAGAIN and len(self._begun) > len(batch) - done:
                self._collect(1)
            else:  # the system refuses this read: it is done at once, and tells its error
                self._finish(self._number - len(batch) + done + 1, -1)
                done += 1

    def _collect(self, least: int) -> None:
        """Note what has come; with `least` above 0 wait until something has, or for a while."""
        patience = (ctypes.c_int64 * 2)(0, int(PATIENCE * 1e9) if least else 0)
        most, events = ctypes.c_long(_DEPTH), ctypes.byref(self._events)
        came = self._call(
            ctypes.c_long(self._get), self._context, ctypes.c_long(least), most, events, ctypes.byref(patience)
        )
        if came > 0:  # below 0 where a signal came first
            for number, length in _EVENT.iter_unpack(self._events.raw[: came * _EVENT.size]):
                self._finish(number, length)

    def _finish(self, number: int, length: int) -> None:
        unit, span = self._begun.pop(number)
        self._flying -= span.length
        if length < span.least:  # an error, the end of the file, or a part: read again, it tells
            try:
                with self._memory[span.place : span.place + span.length] as part:
                    self._files[span.file].read(part, span)
            except Exception as error:
                self._failure = self._failure or error
                return  # the unit never counts as read, so that nobody computes with it
        self._left[unit] -= 1
        if not self._left[unit]:
            self._reading.discard(unit)
