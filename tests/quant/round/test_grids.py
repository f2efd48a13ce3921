"""Grids: every byte of every type comes back, and the values are the engine's."""

from __future__ import annotations

import numpy as np
import pytest

from quant.round.grids import TYPES, Blocks, grid_of
from runtime.gguf.types import BY_NAME
from runtime.llama import dequantize_rows, quantize_rows


def made_rows(columns: int = 512, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((12, columns)) * random.random((12, 1))
    return rows.astype(np.float32)


@pytest.mark.parametrize("name", TYPES)
def test_each_bit_of_a_block_belongs_to_one_field(name: str) -> None:
    grid = grid_of(name)
    assert grid is not None
    places = np.concatenate([field.ravel() for field in grid.layout.values()])
    assert sorted(places) == list(range(8 * BY_NAME[name].width))


@pytest.mark.parametrize("name", TYPES)
def test_any_bytes_come_back(name: str) -> None:
    grid = grid_of(name)
    assert grid is not None
    for rows, blocks in ((1, 1), (300, 1), (7, 3)):
        stored = np.random.default_rng(rows).integers(0, 256, (rows, blocks * grid.kind.width), np.uint8)
        assert grid.pack(grid.unpack(stored)).tobytes() == stored.tobytes()


@pytest.mark.parametrize("name", TYPES)
def test_values_are_the_engines(name: str) -> None:
    grid = grid_of(name)
    assert grid is not None
    stored = quantize_rows(grid.kind.number, made_rows(), np.ones(512, np.float32))
    blocks = grid.unpack(stored)
    assert np.array_equal(grid.values(blocks).T, dequantize_rows(grid.kind.number, stored))
    assert np.array_equal(grid.pack(blocks), stored)


def test_the_codes_of_a_block_are_those_that_were_written() -> None:
    grid = grid_of("Q3_K")
    assert grid is not None
    codes = (np.arange(256) % 8).astype(np.uint16)[:, None]
    scales = np.arange(16, dtype=np.uint16)[:, None] + 30
    stored = grid.pack(Blocks(codes, np.full((1, 1), 0.5, np.float16), scales))
    assert stored.shape == (1, 110)
    assert grid.unpack(stored).codes.tolist() == codes.tolist()
    # (scale - 32) * d * (code - 4), for the first three columns of the sub-blocks 0 and 5
    assert dequantize_rows(11, stored)[0, [0, 1, 2, 80, 81, 82]].tolist() == [4.0, 3.0, 2.0, -6.0, -4.5, -3.0]


def test_an_even_number_of_signs_is_negative_where_the_type_wants_it() -> None:
    for name in ("IQ2_XXS", "IQ2_XS", "IQ3_XXS"):
        grid = grid_of(name)
        assert grid is not None and grid.has_parity and grid.vector == 8
        stored = np.random.default_rng(1).integers(0, 256, (3, grid.kind.width), np.uint8)
        negative = grid.unpack(stored).negative
        assert negative is not None
        assert (negative.reshape(32, 8, 3).sum(axis=1) % 2 == 0).all()


def test_tables_are_the_engines() -> None:
    table, book = grid_of("IQ4_NL"), grid_of("IQ3_XXS")
    assert table is not None and table.levels is not None and book is not None and book.entries is not None
    assert table.levels.tolist() == [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
    assert book.entries.shape == (256, 4)
    assert book.entries[0].tolist() == [4, 4, 4, 4]  # iq3xxs_grid[0] is 0x04040404 (ggml-common.h)


@pytest.mark.parametrize("name", ["IQ1_S", "IQ1_M", "TQ1_0", "MXFP4", "F16"])
def test_other_types_have_no_grid(name: str) -> None:
    assert grid_of(name) is None


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "IQ4_NL"])
def test_the_nearest_level_is_chosen(name: str) -> None:
    grid = grid_of(name)
    assert grid is not None
    targets = np.concatenate([np.arange(-200, 200, 0.25), np.random.default_rng(3).uniform(-200, 200, 4000)])
    targets = targets.astype(np.float32)
    codes = np.arange(grid.lowest, grid.most_code + 1, dtype=np.uint16)[:, None]
    every = grid.all_levels(Blocks(codes, np.ones((1, 1), np.float16)))
    found = targets.copy()
    grid.round_levels(found)
    assert np.array_equal(np.abs(found - targets), np.abs(every - targets).min(axis=0))
    assert np.array_equal(every[grid.codes(found) - grid.lowest, 0], found)
