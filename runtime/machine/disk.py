"""Measures how fast a disk reads a file, without the page cache."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

_PIECE = 4 << 20
_SECONDS = 0.25
_LEAST = 1 << 20  # bytes; a smaller file is too short to measure


def read_speed(file: Path) -> float:
    """Bytes per second when reading the end of `file` for a quarter of a second; 0 if it cannot be measured.

    Direct reads bypass the page cache. Where they are not possible, the cached part of the file is dropped first.
    """
    try:
        size = os.stat(file).st_size
        if size < _LEAST:
            return 0.0
        direct = getattr(os, "O_DIRECT", 0)
        try:
            handle = os.open(file, os.O_RDONLY | direct)
        except OSError:  # a file system without direct reads, such as tmpfs
            handle, direct = os.open(file, os.O_RDONLY), 0
        try:
            return _speed(handle, size, direct=bool(direct))
        finally:
            os.close(handle)
    except OSError:
        return 0.0


def _speed(handle: int, size: int, *, direct: bool) -> float:
    piece = min(_PIECE, size // mmap.PAGESIZE * mmap.PAGESIZE)
    read = 0
    with mmap.mmap(-1, piece) as buffer:  # direct reads need memory at the start of a page
        if not direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        for offset in range(size // piece * piece - piece, -1, -piece):
            read += os.preadv(handle, [buffer], offset)
            if time.perf_counter() - started > _SECONDS:
                break
        seconds = time.perf_counter() - started
    return read / seconds if read and seconds > 0 else 0.0
