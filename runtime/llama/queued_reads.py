"""Reads parts of a model file through Linux's queue of reads (io_submit), without threads.

A read of an expert takes a fraction of a millisecond, and a token needs a hundred of them. Threads of Python that read
them take turns at the interpreter with the thread that computes, which costs more than the reads.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections import deque
from collections.abc import Callable, Collection, Sequence

from runtime.base.errors import DsrError
from runtime.from_disk.reader import PATIENCE, ReadFile, Span

# io_setup, io_destroy, io_getevents, io_submit (asm/unistd.h of each kind of processor).
_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_DEPTH = 1024  # reads in flight; the system allows 65,536 in all (fs.aio-max-nr)
# Guesses in flight: enough to keep a disk busy, and few, because what was begun cannot be taken back.
_GUESSES = 16
_REQUEST = struct.Struct("<QIIHhIQQqQII")  # struct iocb (linux/aio_abi.h): our number, -, -, IOCB_CMD_PREAD = 0, ...
_EVENT = struct.Struct("<QQqq")  # struct io_event: our number, the request, bytes or a negative errno, -


class NoQueue(DsrError):
    """The system has no queue of reads, or gives none."""


class QueuedReader:
    """As `runtime.from_disk.reader.Reader`, for small parts: to begin a large one takes the processor for a while."""

    def __init__(self, files: Sequence[ReadFile], memory: memoryview) -> None:
        """Raises NoQueue."""
        calls = _CALLS.get(platform.machine())
        if sys.platform != "linux" or calls is None or not all(file.direct for file in files):
            raise NoQueue("this system or this disk has no queue of direct reads")
        setup, self._destroy, self._get, self._submit = calls
        self._context = ctypes.c_uint64(0)
        if _call(setup, _DEPTH, ctypes.addressof(self._context)) != 0:
            raise NoQueue(f"the system gives no queue of reads: {os.strerror(ctypes.get_errno())}")
        self._files = files
        self._memory = memory
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._requests = ctypes.create_string_buffer(_REQUEST.size * _DEPTH)
        first = ctypes.addressof(self._requests)
        self._each = (ctypes.c_uint64 * _DEPTH)(*range(first, first + _REQUEST.size * _DEPTH, _REQUEST.size))
        self._events = ctypes.create_string_buffer(_EVENT.size * _DEPTH)
        self._now: deque[tuple[int, Span]] = deque()
        self._later: deque[tuple[int, Span]] = deque()
        self._begun: dict[int, tuple[int, Span]] = {}  # by our number
        self._number = 0
        self._left: dict[int, int] = {}
        self._untouched: dict[int, int] = {}  # spans that were not begun, of guesses
        self.reading: set[int] = set()
        self._failure: Exception | None = None
