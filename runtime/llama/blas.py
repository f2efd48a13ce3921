"""Holds the matrix products of numpy to one thread."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Matrix products and factorizations compute in the thread that calls them, in the whole process.

    With more threads OpenBLAS adds in another order, so the last digits would depend on their number. Without
    OpenBLAS (other builds of numpy) nothing changes.
    """
    library = _openblas()
    if library is None:
        yield
        return
    before = int(library.scipy_openblas_get_num_threads64_())
    library.scipy_openblas_set_num_threads64_(1)
    try:
        yield
    finally:
        library.scipy_openblas_set_num_threads64_(before)


@cache
def _openblas() -> ctypes.CDLL | None:
    """The OpenBLAS that numpy's wheel brings (numpy.libs, or .dylibs on macOS); None for another."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*scipy_openblas64*")):
            library = ctypes.CDLL(str(path))  # the copy that numpy has loaded already, found by its file
            if hasattr(library, "scipy_openblas_set_num_threads64_"):
                library.scipy_openblas_set_num_threads64_.argtypes = [ctypes.c_int]
                library.scipy_openblas_set_num_threads64_.restype = None
                return library
    return None
