"""Gives memory in which the engine computed back to the system between two passes.

The working buffers of a pass hold nothing that a later pass reads: its inputs are set again (set_inputs in
src/llama-context.cpp), and each tensor is written before it is read. So their pages may be gone; the next pass gets
new ones, filled with zeros.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

_advise = getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
if _advise is not None:
    _advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def give_back(address: int, size: int) -> None:
    """Give back the whole pages within `size` bytes from `address`. They are zero from then on.

    They must be private memory of this process, no part of a file. Nothing happens except on Linux.
    """
    begin, end = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if _advise is not None and begin < end:
        _advise(begin, end - begin, mmap.MADV_DONTNEED)
