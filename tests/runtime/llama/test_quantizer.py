"""Rows of any bytes."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.gguf.types import BY_NAME, NOT_FOR_WEIGHTS
from runtime.llama import dequantize_rows


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - NOT_FOR_WEIGHTS))
def test_any_bytes_of_whole_blocks_become_values(name: str) -> None:
    """What a file holds as weights never ends the process: tables are looked up with as many bits as they have."""
    kind, random = BY_NAME[name], np.random.default_rng(0)
    for stored in (
        random.integers(0, 256, (64, 8 * kind.width), np.uint8),
        np.zeros((1, kind.width), np.uint8),
        np.full((1, kind.width), 255, np.uint8),
    ):
        values = dequantize_rows(kind.number, stored)
        assert values.shape == (len(stored), stored.shape[1] // kind.width * kind.block)
