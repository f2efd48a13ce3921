"""Brings the weights of every token into the system's cache before the engine copies them from there.

The engine reads each tensor in one call, which neither a signal nor the end of the process interrupts. A large one
takes seconds on a slow disk. Pieces of 1 MiB can be stopped between two of them, and eight at once read faster.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from runtime.from_disk.reader import ReadFile, Span, ThreadedReader
from runtime.gguf.header import TensorInfo

_PIECE = 1 << 20  # bytes; all pieces are read to the same place, for only the cache is to have them


def preread(
    files: Sequence[Path], tensors: Sequence[TensorInfo], stop: Callable[[], bool], read: Callable[[int], None]
) -> bool:
    """Read all `tensors`, and tell `read` after each one how many bytes have come. False if `stop` was true before.

    Raises DsrError for a file that cannot be opened, DiskFailed, or WeightsLost for a file that was cut."""
    ordered = sorted(tensors, key=lambda each: (each.file, each.offset))
    with ExitStack() as stack:
        opened = []
        for path in files:
            opened.append(ReadFile(path, into_cache=True))
            stack.callback(opened[-1].close)
        scratch = stack.enter_context(mmap.mmap(-1, _PIECE))
        memory = stack.enter_context(memoryview(scratch))
        reader = ThreadedReader(opened, memory)
        stack.callback(reader.close)
        for number, tensor in enumerate(ordered):
            reader.ask([(number, _pieces(tensor))], now=True)
        done = 0
        for number, tensor in enumerate(ordered):
            if not reader.wait({number}, stop):
                return False
            done += tensor.size
            read(done)
    return True


def forget(files: Sequence[Path]) -> None:
    """Let the system's cache forget these files."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _pieces(tensor: TensorInfo) -> list[Span]:
    return [
        Span(tensor.file, tensor.offset + begin, 0, length, length)
        for begin in range(0, tensor.size, _PIECE)
        for length in [min(_PIECE, tensor.size - begin)]
    ]
