"""The numbers of stored tensors, from files that are mapped into memory, a part at a time."""

from __future__ import annotations

import math
import mmap
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.base.errors import PUBLISHED, BadModelFile, DsrError
from runtime.base.safetensors import StoredTensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# How numpy calls the types that are read. BF16 and the floats of one byte are codes.
_KINDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F8_E4M3": "u1", "F8_E8M0": "u1", "U8": "u1", "I8": "i1"}
_KINDS |= {"I32": "<i4", "I64": "<i8"}
FLOATS = ("BF16", "F16", "F32")
# One access may bring in as much as a huge page around it, and what is given back must reach as far.
_FAULT = 1 << 21
_RUN = 1 << 16  # elements that are converted at a time, so that they stay in the processor's cache


class MappedFiles:
    """Files that are mapped when they are first needed. Several threads may read."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def floats(self, tensor: StoredTensor, first: int, out: NDArray[np.float32]) -> None:
        """Fill `out`, which is contiguous, with elements of `tensor` from number `first` on, as float32."""
        import numpy as np

        flat = out.reshape(-1)
        assert np.shares_memory(flat, out)
        raw = self._raw(tensor, first, flat.size)
        for at in range(0, flat.size, _RUN):
            part, target = raw[at : at + _RUN], flat[at : at + _RUN]
            if tensor.dtype == "BF16":  # the upper half of a float32
                bits = target.view(np.uint32)
                bits[...] = part
                np.left_shift(bits, 16, out=bits)
            elif tensor.dtype in ("F8_E4M3", "F8_E8M0"):
                np.take(_e4m3() if tensor.dtype == "F8_E4M3" else _e8m0(), part, out=target, mode="clip")
            else:
                target[...] = part
        self._release(tensor, raw)

    def rows(self, tensor: StoredTensor, first: int, count: int) -> NDArray[Any]:
        """A copy of rows as they are stored, (count, row length). Rows run over all dimensions but the last."""
        raw = self._raw(tensor, first * tensor.width, count * tensor.width)
        found = raw.reshape(count, tensor.width).copy()
        self._release(tensor, raw)
        return found

    def columns(self, tensor: StoredTensor, first: int, count: int) -> NDArray[Any]:
        """A copy of columns of a matrix as they are stored, (rows, count)."""
        raw = self._raw(tensor, 0, tensor.rows * tensor.width)
        found = raw.reshape(tensor.rows, tensor.width)[:, first : first + count].copy()
        self._release(tensor, raw)
        return found

    def factors(self, tensor: StoredTensor, first: int, count: int) -> NDArray[np.float32]:
        """Elements as float32. Raises BadModelFile for NaN and infinity."""
        import numpy as np

        found = np.empty(count, np.float32)
        self.floats(tensor, first, found)
        return _finite(found, tensor)

    def factor_columns(self, tensor: StoredTensor, first: int, count: int) -> NDArray[np.float32]:
        """Columns of a matrix as float32, (rows, count). Raises BadModelFile for NaN and infinity."""
        import numpy as np

        found = self.columns(tensor, first, count)
        if tensor.dtype == "BF16":
            found = (found.astype(np.uint32) << 16).view(np.float32)
        return _finite(found.astype(np.float32, copy=False), tensor)

    def _raw(self, tensor: StoredTensor, first: int, count: int) -> NDArray[Any]:
        import numpy as np

        kind = np.dtype(_KINDS[tensor.dtype])
        begin = tensor.begin + first * kind.itemsize
        if begin + count * kind.itemsize > tensor.end:
            raise ValueError(f"{tensor.name} has no {count} elements behind number {first}")
        return np.frombuffer(self._map(tensor.file), kind, count, begin)

    def _release(self, tensor: StoredTensor, raw: NDArray[Any]) -> None:
        """Give back the pages that were read, so that resident memory stays one slab and not the whole file."""
        if hasattr(mmap, "MADV_DONTNEED") and raw.size:
            mapped = self._maps[tensor.file]
            begin = raw.__array_interface__["data"][0] - _address(mapped)
            first_page = begin // _FAULT * _FAULT
            past = min(-(-(begin + raw.nbytes) // _FAULT) * _FAULT, len(mapped))
            mapped.madvise(mmap.MADV_DONTNEED, first_page, past - first_page)

    def _map(self, file: Path) -> mmap.mmap:
        found = self._maps.get(file)
        if found is None:
            try:
                with file.open("rb") as opened:
                    found = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DsrError(f"{file}: cannot be read: {error}") from error
            # Another thread may have mapped it meanwhile. All must have the same map: pages are given back by address.
            found = self._maps.setdefault(file, found)
        return found


def _address(mapped: mmap.mmap) -> int:
    import numpy as np

    return int(np.frombuffer(mapped, np.uint8, 1).__array_interface__["data"][0])


def _finite(values: NDArray[np.float32], tensor: StoredTensor) -> NDArray[np.float32]:
    import numpy as np

    if not np.isfinite(values).all():
        raise BadModelFile(tensor.file, f"tensor {tensor.name!r} holds NaN or infinity", hint=PUBLISHED)
    return values


@cache
def _e4m3() -> NDArray[np.float32]:
    """The value of each of the 256 codes of FP8 e4m3fn: sign, 4 bits of exponent with bias 7, 3 of mantissa."""
    import numpy as np

    def value(code: int) -> float:
        exponent, mantissa = code >> 3 & 15, code & 7
        if (exponent, mantissa) == (15, 7):
            return math.nan
        size = math.ldexp(mantissa, -9) if exponent == 0 else math.ldexp(8 + mantissa, exponent - 10)
        return math.copysign(size, -1 if code & 128 else 1)

    return np.array([value(code) for code in range(256)], np.float32)


@cache
def _e8m0() -> NDArray[np.float32]:
    """The value of each of the 256 codes of E8M0: a power of two with bias 127; the last is no number (OCP MX 1.0)."""
    import numpy as np

    return np.array([*(math.ldexp(1, code - 127) for code in range(255)), math.nan], np.float32)
