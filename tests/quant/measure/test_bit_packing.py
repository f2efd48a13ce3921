from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.measure.bit_packing import pack, packed_size, unpack


def test_the_lowest_bit_comes_first() -> None:
    assert pack(np.array([1, 2, 3], np.uint32), 3) == bytes([0b11_010_001, 0])
    assert packed_size(3, 3) == 2


@given(st.integers(1, 32).flatmap(lambda w: st.tuples(st.just(w), st.lists(st.integers(0, 2**w - 1)))))
def test_what_is_packed_comes_back(given: tuple[int, list[int]]) -> None:
    width, values = given
    packed = pack(np.array(values, np.uint32), width)
    assert len(packed) == packed_size(len(values), width)
    assert unpack(packed, len(values), width).tolist() == values


@pytest.mark.parametrize("width", [1, 3, 17])
def test_more_than_one_piece(width: int) -> None:
    values = np.random.default_rng(1).integers(0, 2**width, 2 * (1 << 16) + 5).astype(np.uint32)
    assert (unpack(pack(values, width), values.size, width) == values).all()
