"""The values that a ggml type can hold, as a `Grid`: blocks as codes and scales, and back to the same bytes.

A weight is `d * factor(scale) * level - m * min`, with one d and m for each block, one scale and min for each
sub-block. A level is the code plus a constant (Q2_K to Q6_K, Q4_0 ...), an entry of a table (IQ4), or a part of an
entry of a codebook with a sign (IQ2, IQ3). Types without a grid here keep the engine's rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from quant.round.bits import Move, moves_of, put, taken
from quant.round.layouts import LAYOUTS, Layout
from runtime.gguf.types import BY_NAME, GgmlType

Floats = NDArray[np.float32]

_SIGNS = 8  # columns whose signs are stored together; with parity, an even number of them is negative
_REACH = 256  # twice the largest level of a table is less


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Rows of a matrix as their fields, columns first, so that the values of a column lie together.

    `codes` is (columns, rows), uint16, or (groups, rows) for a codebook, `negative` (columns, rows) there and None
    elsewhere. `d` is (blocks, rows) in float16, `scales` (sub-blocks, rows) uint16, each None where the type has none;
    the same for `m` and `mins`. `m` has the sign with which it is stored.
    """

    codes: NDArray[np.uint16]
    d: NDArray[np.float16]
    scales: NDArray[np.uint16] | None = None
    m: NDArray[np.float16] | None = None
    mins: NDArray[np.uint16] | None = None
    negative: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A type as a grid.

    `sub` columns share a scale. `level0` is the level of code 0; codes below `lowest` are never chosen. `levels` is the
    table of an IQ4 type, `entries` the codebook, (entries, columns of a group). `factor0` and `step` make a scale a
    factor. `signed` are fields in two's complement. `m_sign`: -1 where the stored m is added.
    """

    kind: GgmlType
    layout: Layout
    sub: int
    level0: int = 0
    lowest: int = 0
    factor0: float = 0.0
    step: float = 1.0
    m_sign: int = 1
    signed: frozenset[str] = frozenset()
    levels: Floats | None = None
    entries: Floats | None = None

    @property
    def most_code(self) -> int:
        return int((1 << self.layout["code"].shape[1]) - 1)

    @property
    def most_scale(self) -> int:
        return int((1 << self.layout["scale"].shape[1]) - 1)

    @property
    def has_scales(self) -> bool:
        return "scale" in self.layout

    @property
    def has_mins(self) -> bool:
        return "m" in self.layout

    @property
    def has_parity(self) -> bool:
        return "sign" in self.layout and len(self.layout["sign"]) < self.kind.block

    @property
    def group(self) -> int:
        """Columns of a code: 1, or the length of a codebook's entries."""
        return 1 if "sign" not in self.layout else self.kind.block // len(self.layout["code"])

    @property
    def vector(self) -> int:
        """Columns that must be chosen together: those of a code, or of the signs where the last one is no choice."""
        return _SIGNS if self.has_parity else self.group

    def unpack(self, stored: NDArray[np.uint8]) -> Blocks:
        """The fields of rows, (rows, bytes of a row)."""
        rows = len(stored)
        bytes_first = np.ascontiguousarray(stored.T).reshape(-1, self.kind.width, rows)

        def field(name: str) -> NDArray[np.uint16]:
            places = self.layout[name]
            found = taken(bytes_first, _moves(self.kind.name, name), len(places))
            return (found ^ self._top(name)).reshape(-1, rows)

        negative = None
        if "sign" in self.layout:
            negative = field("sign").astype(np.bool_)
            if self.has_parity:
                seven = negative.reshape(-1, _SIGNS - 1, rows)
                last = np.logical_xor.reduce(seven, axis=1, keepdims=True)
                negative = np.concatenate([seven, last], axis=1).reshape(-1, rows)
        return Blocks(
            field("code"),
            field("d").view(np.float16),
            field("scale") if self.has_scales else None,
            field("m").view(np.float16) if self.has_mins else None,
            field("min") if "min" in self.layout else None,
            negative,
        )

    def pack(self, blocks: Blocks) -> NDArray[np.uint8]:
        """The bytes of rows, (rows, bytes of a row): `pack(unpack(x))` is x for any bytes. Signs that have the wrong
        parity lose the last."""
        count, rows = blocks.d.shape
        bytes_first = np.zeros((count, self.kind.width, rows), np.uint8)

        def store(name: str, values: NDArray[np.uint16]) -> None:
            stored = values.reshape(count, -1, rows) ^ self._top(name)
            put(bytes_first, _moves(self.kind.name, name), stored)

        store("code", blocks.codes)
        store("d", blocks.d.view(np.uint16))
        if blocks.negative is not None:
            signs = blocks.negative.reshape(-1, _SIGNS, rows)
            store("sign", (signs[:, : _SIGNS - 1] if self.has_parity else signs).astype(np.uint16))
        if blocks.scales is not None:
            store("scale", blocks.scales)
        if blocks.m is not None:
            store("m", blocks.m.view(np.uint16))
        if blocks.mins is not None:
            store("min", blocks.mins)
        return np.ascontiguousarray(bytes_first.reshape(-1, rows).T)

    def _top(self, name: str) -> np.uint16:
        """The bit to invert, so that the lowest number of a signed field is 0."""
        return np.uint16(1 << (self.layout[name].shape[1] - 1) if name in self.signed else 0)

    def factors(self, scales: NDArray[np.uint16]) -> Floats:
        """The numbers that multiply d."""
        return np.float32(self.factor0) + np.float32(self.step) * scales.astype(np.float32)

    def steps(self, blocks: Blocks) -> Floats:
        """What a level is multiplied by, (sub-blocks, rows)."""
        d = blocks.d.astype(np.float32)
        if blocks.scales is None:
            return d
        return np.repeat(d, self.kind.block // self.sub, axis=0) * self.factors(blocks.scales)

    def offsets(self, blocks: Blocks) -> Floats | None:
        """What is subtracted then, (sub-blocks, rows); None for a type without."""
        if blocks.m is None:
            return None
        m = self.m_sign * blocks.m.astype(np.float32)
        if blocks.mins is None:
            return m
        return np.repeat(m, self.kind.block // self.sub, axis=0) * blocks.mins.astype(np.float32)

    def round_levels(self, wanted: Floats) -> None:
        """Make each number the nearest level, in place; halves go as np.rint does. Not for codebooks."""
        if self.levels is not None:
            twice = np.ceil(wanted * 2)
            np.maximum(twice, -_REACH, out=twice)
            np.minimum(twice, _REACH - 1, out=twice)
            np.take(_nearest_levels(self.kind.name), twice.astype(np.intp) + _REACH, out=wanted)
            return
        np.rint(wanted, out=wanted)
        np.maximum(wanted, np.float32(self.lowest + self.level0), out=wanted)
        np.minimum(wanted, np.float32(self.most_code + self.level0), out=wanted)

    def codes(self, levels: Floats) -> NDArray[np.uint16]:
        """The codes of levels, in any shape. Not for codebooks."""
        if self.levels is not None:
            return np.asarray(np.searchsorted(self.levels, levels), np.uint16)
        return (levels - np.float32(self.level0)).astype(np.uint16)

    def all_levels(self, blocks: Blocks) -> Floats:
        """The level of each weight, (columns, rows)."""
        if self.levels is not None:
            return self.levels[blocks.codes]
        if self.entries is None:
            return blocks.codes.astype(np.float32) + np.float32(self.level0)
        assert blocks.negative is not None
        levels = np.empty(blocks.negative.shape, np.float32)
        for place in range(self.group):
            levels[place :: self.group] = self.entries[blocks.codes, place]
        return np.where(blocks.negative, -levels, levels)

    def values(self, blocks: Blocks) -> Floats:
        """The weights, (columns, rows)."""
        found = np.repeat(self.steps(blocks), self.sub, axis=0) * self.all_levels(blocks)
        offsets = self.offsets(blocks)
        return found if offsets is None else found - np.repeat(offsets, self.sub, axis=0)


@cache
def _moves(type_name: str, field: str) -> tuple[Move, ...]:
    return moves_of(LAYOUTS[type_name][field])


@cache
def _nearest_levels(type_name: str) -> Floats:
    """The level that is nearest to x of a table, at place ceil(2 x) + _REACH: levels are whole numbers, so the middle
    between two of them is a multiple of a half."""
    grid = grid_of(type_name)
    assert grid is not None and grid.levels is not None
    twice = grid.levels[1:] + grid.levels[:-1]
    return np.asarray(grid.levels[np.searchsorted(twice, np.arange(-_REACH, _REACH, dtype=np.float32))])


@cache
def grid_of(type_name: str) -> Grid | None:
    """The grid of a type; None for a type whose rounding stays the engine's (IQ1, ternary and floating types)."""
    found = _GRIDS.get(type_name)
    if found is None or type_name not in _LOOKED_UP:
        return found
    table = _engines_table(found)
    return replace(found, levels=table[:, 0]) if found.group == 1 else replace(found, entries=table)


def _engines_table(grid: Grid) -> Floats:
    """The values of all codes, (codes, columns of a code): the engine decodes a row that has them in order."""
    from runtime.llama import dequantize_rows

    count, group = grid.most_code + 1, grid.group
    blocks = -(-count * group // grid.kind.block)
    codes = np.arange(blocks * grid.kind.block // group, dtype=np.uint16).reshape(-1, 1) % np.uint16(count)
    scale = np.uint16(round((1 - grid.factor0) / grid.step) if grid.factor0 < 0 else 0)
    subs = blocks * grid.kind.block // grid.sub
    probe = Blocks(
        codes,
        np.ones((blocks, 1), np.float16),
        np.full((subs, 1), scale, np.uint16) if grid.has_scales else None,
        negative=np.zeros((blocks * grid.kind.block, 1), np.bool_) if "sign" in grid.layout else None,
    )
    factor = grid.factors(np.array([scale], np.uint16)) if grid.has_scales else np.ones(1, np.float32)
    values = dequantize_rows(grid.kind.number, grid.pack(probe)) / factor
    return values.reshape(-1, group)[:count].astype(np.float32)


def _grid(
    name: str,
    sub: int,
    *,
    level0: int = 0,
    lowest: int = 0,
    factor0: float = 0.0,
    step: float = 1.0,
    m_sign: int = 1,
    signed: frozenset[str] = frozenset(),
) -> tuple[str, Grid]:
    kind = BY_NAME[name]
    return name, Grid(kind, LAYOUTS[name], sub, level0, lowest, factor0, step, m_sign, signed)


# Constants of the dequantize_row_* functions of ggml/src/ggml-quants.c.
_GRIDS: Mapping[str, Grid] = dict(
    (
        _grid("Q4_0", 32, level0=-8),
        _grid("Q4_1", 32, m_sign=-1),
        _grid("Q5_0", 32, level0=-16),
        _grid("Q5_1", 32, m_sign=-1),
        _grid("Q8_0", 32, level0=-128, lowest=1, signed=frozenset({"code"})),  # the engine never stores -128
        _grid("IQ4_NL", 32),
        _grid("Q2_K", 16),
        _grid("Q3_K", 16, level0=-4, factor0=-32),
        _grid("Q4_K", 32),
        _grid("Q5_K", 32),
        _grid("Q6_K", 16, level0=-32, factor0=-128, signed=frozenset({"scale"})),
        _grid("IQ4_XS", 32, factor0=-32),
        _grid("IQ3_S", 32, factor0=1, step=2),
        _grid("IQ2_S", 16, factor0=0.125, step=0.25),
        _grid("IQ3_XXS", 32, factor0=0.25, step=0.5),
        _grid("IQ2_XXS", 32, factor0=0.125, step=0.25),
        _grid("IQ2_XS", 16, factor0=0.125, step=0.25),
    )
)
_LOOKED_UP = frozenset({"IQ4_NL", "IQ4_XS", "IQ3_S", "IQ2_S", "IQ3_XXS", "IQ2_XXS", "IQ2_XS"})
TYPES = tuple(_GRIDS)
