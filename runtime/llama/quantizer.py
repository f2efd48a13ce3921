"""Quantizes and dequantizes rows of weights with ggml's own functions."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import UsageError, VerificationFailed
from runtime.gguf.types import BY_NUMBER, NOT_FOR_WEIGHTS, GgmlType
from runtime.llama.native import library


@cache
def _quantizers() -> ctypes.CDLL:
    """libggml-base with the prototypes of the quantize and dequantize functions (ggml.h)."""
    base = library("ggml-base")
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    base.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p
    ]  # fmt: skip
    base.ggml_quantize_init.argtypes = [ctypes.c_int]
    base.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    base.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    base.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    base.ggml_validate_row_data.restype = ctypes.c_bool
    base.ggml_get_type_traits.argtypes = [ctypes.c_int]
    base.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    return base


class _TypeTraits(ctypes.Structure):
    """struct ggml_type_traits (ggml.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("block_interleave", ctypes.c_int64),
        ("width", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    )


# The scale of each block is an f16. Larger values make it infinite, which aborts the process in some quantizers.
_LARGEST_WEIGHT = 65504.0
_LARGEST = {"F32": 3.4028235e38, "BF16": 3.3895314e38}
_LARGEST_IMPORTANCE = 1e15


def quantize_rows(
    type_number: int, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Quantizes rows, shape (n, row_length), to a type; returns (n, bytes of a row).

    `importance`, shape (row_length,), weighs the columns of each row. Rows are independent, and Python's lock is free
    during the work, so several threads can share it. Raises VerificationFailed for values that are not finite or too
    large for the type, UsageError if the type needs an importance and there is none.
    """
    base, kind = _quantizers(), _quantizable(type_number)
    count, length = rows.shape
    if length % kind.block:
        raise UsageError(f"rows of {length} weights do not divide into the blocks of {kind.block} of {kind.name}")
    rows = np.ascontiguousarray(rows, np.float32)
    _refuse_values(rows, _LARGEST.get(kind.name, _LARGEST_WEIGHT), kind.name)
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        if importance.shape != (length,):
            raise UsageError(f"an importance of the shape {importance.shape} for rows of {length} weights")
        if not (importance.min() >= 0 and importance.max() <= _LARGEST_IMPORTANCE):
            raise VerificationFailed("the importance matrix holds values that are negative, not finite or too large")
    elif base.ggml_quantize_requires_imatrix(type_number):
        raise UsageError(f"{kind.name} needs an importance matrix")
    stored = np.empty((count, length // kind.block * kind.width), np.uint8)
    if count:
        weights = None if importance is None else importance.ctypes.data
        base.ggml_quantize_chunk(type_number, rows.ctypes.data, stored.ctypes.data, 0, count, length, weights)
        check_rows(type_number, stored)
    return stored


def check_rows(type_number: int, stored: NDArray[np.uint8]) -> None:
    """Raises VerificationFailed for stored rows, (n, bytes of a row), whose scales are not finite."""
    kind = _quantizable(type_number)
    stored = np.ascontiguousarray(stored)
    if not _quantizers().ggml_validate_row_data(type_number, stored.ctypes.data, stored.nbytes):
        raise VerificationFailed(f"storing them as {kind.name} gave values that are not finite")


def dequantize_rows(type_number: int, stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Dequantizes rows, shape (n, bytes of a row), to (n, row_length) values."""
    kind = _quantizable(type_number)
    stored = np.ascontiguousarray(stored)
    count, width = stored.shape
    if width % kind.width:
        raise UsageError(f"rows of {width} bytes do not divide into the blocks of {kind.width} bytes of {kind.name}")
    if kind.name == "F32":
        return stored.view(np.float32)
    rows = np.empty((count, width // kind.width * kind.block), np.float32)
    traits = _quantizers().ggml_get_type_traits(type_number).contents
    traits.to_float(stored.ctypes.data, rows.ctypes.data, rows.size)
    return rows


def _quantizable(type_number: int) -> GgmlType:
    kind = BY_NUMBER.get(type_number)
    if kind is None or kind.name in NOT_FOR_WEIGHTS:
        raise UsageError(f"{kind.name if kind else type_number} is not a type for weights")
    return kind


def _refuse_values(rows: NDArray[np.float32], largest: float, name: str) -> None:
    # Comparisons with NaN are false.
    if rows.size and not (-largest <= rows.min() and rows.max() <= largest):
        kind = "beyond its range" if np.isfinite(rows).all() else "that are not finite (NaN or infinite)"
        raise VerificationFailed(f"there are values {kind}, which {name} cannot hold")
