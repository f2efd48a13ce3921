"""Where the bits of each field lie in a block of a ggml type.

Source: the dequantize_row_* functions of ggml/src/ggml-quants.c. A layout maps the name of a field to bit positions,
(values, bits of a value) with the lowest bit first; bit 0 is the lowest bit of byte 0. The fields of a block:

code   one value for each column, or for each group of columns of a codebook
sign   one bit for each column; 7 bits for each 8 columns where the eighth follows from the others
scale  one value for each sub-block; Q4_0 and the like have none
min    as `scale`
d, m   the float16 that multiplies the scales, and the one that multiplies the mins
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Places = NDArray[np.intp]
Layout = Mapping[str, Places]

_COLUMN = np.arange(256)
_COLUMN32 = np.arange(32)


def _bits(byte: ArrayLike, first: ArrayLike, count: int) -> NDArray[np.intp]:
    """`count` bits of each value, from bit `first` of its byte on; they may go on in the next byte."""
    start = np.asarray(byte, np.intp).reshape(-1) * 8 + np.asarray(first, np.intp).reshape(-1)
    return start[:, None] + np.arange(count)


def _joined(*parts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Values whose bits lie in several places, the lowest first."""
    return np.concatenate(parts, axis=1)


def _nibbles(base: int) -> NDArray[np.intp]:
    """32 columns in 16 bytes: the first half in the low nibbles."""
    return _bits(base + _COLUMN32 % 16, _COLUMN32 // 16 * 4, 4)


def _wide_nibbles(base: int, half: int) -> NDArray[np.intp]:
    """256 columns in 128 bytes: `half` columns in low nibbles, the next in the high nibbles of the same bytes."""
    return _bits(base + _COLUMN // (2 * half) * half + _COLUMN % half, _COLUMN // half % 2 * 4, 4)


def _crumbs(base: int) -> NDArray[np.intp]:
    """256 columns of two bits in 64 bytes: 32 columns in each position of the bytes."""
    return _bits(base + _COLUMN // 128 * 32 + _COLUMN % 32, _COLUMN % 128 // 32 * 2, 2)


def _half_bytes(base: int, count: int) -> NDArray[np.intp]:
    """`count` nibbles, two in each byte."""
    each = np.arange(count)
    return _bits(base + each // 2, each % 2 * 4, 4)


def _float16(base: int) -> NDArray[np.intp]:
    return _bits(base, 0, 16)


def _scales_and_mins(base: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The 6-bit scales and mins of Q4_K and Q5_K in 12 bytes (get_scale_min_k4)."""
    j = np.arange(4)
    scale = np.concatenate([_bits(base + j, 0, 6), _joined(_bits(base + 8 + j, 0, 4), _bits(base + j, 6, 2))])
    least = np.concatenate([_bits(base + 4 + j, 0, 6), _joined(_bits(base + 8 + j, 4, 4), _bits(base + 4 + j, 6, 2))])
    return scale, least


def _q2_k() -> Layout:
    each = np.arange(16)
    scale, least = _bits(each, 0, 4), _bits(each, 4, 4)
    return {"code": _crumbs(16), "scale": scale, "min": least, "d": _float16(80), "m": _float16(82)}


def _q3_k() -> Layout:
    code = _joined(_crumbs(32), _bits(_COLUMN % 32, _COLUMN // 32, 1))
    each = np.arange(16)
    scale = _joined(_bits(96 + each % 8, each // 8 * 4, 4), _bits(104 + each % 4, each // 4 * 2, 2))
    return {"code": code, "scale": scale, "d": _float16(108)}


def _q4_k() -> Layout:
    scale, least = _scales_and_mins(4)
    return {"code": _wide_nibbles(16, 32), "scale": scale, "min": least, "d": _float16(0), "m": _float16(2)}


def _q5_k() -> Layout:
    scale, least = _scales_and_mins(4)
    code = _joined(_wide_nibbles(48, 32), _bits(16 + _COLUMN % 32, _COLUMN // 32, 1))
    return {"code": code, "scale": scale, "min": least, "d": _float16(0), "m": _float16(2)}


def _q6_k() -> Layout:
    high = _bits(128 + _COLUMN // 128 * 32 + _COLUMN % 32, _COLUMN % 128 // 32 * 2, 2)
    return {
        "code": _joined(_wide_nibbles(0, 64), high),
        "scale": _bits(192 + np.arange(16), 0, 8),
        "d": _float16(208),
    }


def _iq4_xs() -> Layout:
    code = _bits(8 + _COLUMN // 32 * 16 + _COLUMN % 16, _COLUMN // 16 % 2 * 4, 4)
    scale = _joined(_half_bytes(4, 8), _bits(2, 2 * np.arange(8), 2))
    return {"code": code, "scale": scale, "d": _float16(0)}


def _iq3_s() -> Layout:
    group = np.arange(64)
    code = _joined(_bits(2 + group, 0, 8), _bits(66 + group // 8, group % 8, 1))
    return {"code": code, "sign": _bits(74, _COLUMN, 1), "scale": _half_bytes(106, 8), "d": _float16(0)}


def _iq2_s() -> Layout:
    group = np.arange(32)
    code = _joined(_bits(2 + group, 0, 8), _bits(66 + group // 4, group % 4 * 2, 2))
    return {"code": code, "sign": _bits(34, _COLUMN, 1), "scale": _half_bytes(74, 16), "d": _float16(0)}


def _signs_of_seven(base: ArrayLike) -> NDArray[np.intp]:
    """Seven signs of each group of 8 in words of 32 bits, whose upper four bits are a scale."""
    group = np.arange(32)
    return _bits(np.repeat(np.asarray(base), 4), group % 4 * 7, 7).reshape(-1, 1)


def _iq3_xxs() -> Layout:
    word = 66 + 4 * np.arange(8)
    return {
        "code": _bits(2 + np.arange(64), 0, 8),
        "sign": _signs_of_seven(word),
        "scale": _bits(word + 3, 4, 4),
        "d": _float16(0),
    }


def _iq2_xxs() -> Layout:
    group, word = np.arange(32), 2 + 8 * np.arange(8)
    return {
        "code": _bits(2 + group // 4 * 8 + group % 4, 0, 8),
        "sign": _signs_of_seven(word + 4),
        "scale": _bits(word + 7, 4, 4),
        "d": _float16(0),
    }


def _iq2_xs() -> Layout:
    group = np.arange(32)
    return {
        "code": _bits(2 + 2 * group, 0, 9),
        "sign": _bits(3 + 2 * group, 1, 7).reshape(-1, 1),
        "scale": _half_bytes(66, 16),
        "d": _float16(0),
    }


LAYOUTS: Mapping[str, Layout] = {
    "Q4_0": {"code": _nibbles(2), "d": _float16(0)},
    "Q4_1": {"code": _nibbles(4), "d": _float16(0), "m": _float16(2)},
    "Q5_0": {"code": _joined(_nibbles(6), _bits(2, _COLUMN32, 1)), "d": _float16(0)},
    "Q5_1": {"code": _joined(_nibbles(8), _bits(4, _COLUMN32, 1)), "d": _float16(0), "m": _float16(2)},
    "Q8_0": {"code": _bits(2 + _COLUMN32, 0, 8), "d": _float16(0)},
    "IQ4_NL": {"code": _nibbles(2), "d": _float16(0)},
    "Q2_K": _q2_k(),
    "Q3_K": _q3_k(),
    "Q4_K": _q4_k(),
    "Q5_K": _q5_k(),
    "Q6_K": _q6_k(),
    "IQ4_XS": _iq4_xs(),
    "IQ3_S": _iq3_s(),
    "IQ2_S": _iq2_s(),
    "IQ3_XXS": _iq3_xxs(),
    "IQ2_XXS": _iq2_xxs(),
    "IQ2_XS": _iq2_xs(),
}
