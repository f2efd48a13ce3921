"""Rows of a matrix while their codes are chosen. Arrays have the columns first, so that a column is contiguous."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.round.grids import Blocks, Grid

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a vector of columns becomes: `values` (columns, rows), `codes` (codes, rows), and signs of a codebook."""

    values: Floats
    codes: NDArray[np.uint16]
    negative: NDArray[np.bool_] | None = None


class Working:
    """`weights` is (columns, rows); `steps` and `offsets` are (sub-blocks, rows), `codes` (codes, rows)."""

    def __init__(self, grid: Grid, weights: Floats, stored: NDArray[np.uint8]) -> None:
        """From rows, (rows, columns), and how the engine's quantizer stored them."""
        blocks = grid.unpack(stored)
        self.grid = grid
        self.weights: Floats = np.ascontiguousarray(weights.T)
        self.codes = np.ascontiguousarray(blocks.codes.T)
        self.negative = None if blocks.negative is None else np.ascontiguousarray(blocks.negative.T)
        self.d = np.ascontiguousarray(blocks.d.T)
        self.m = None if blocks.m is None else np.ascontiguousarray(blocks.m.T)
        self.scales = None if blocks.scales is None else np.ascontiguousarray(blocks.scales.T)
        self.mins = None if blocks.mins is None else np.ascontiguousarray(blocks.mins.T)
        self.settle()

    def settle(self) -> None:
        """Recompute `steps` and `offsets` after scales have changed."""
        blocks, grid = self.blocks(), self.grid
        self.steps: Floats = np.ascontiguousarray(grid.steps(blocks).T)
        offsets = grid.offsets(blocks)
        self.offsets: Floats | None = None if offsets is None else np.ascontiguousarray(offsets.T)
        with np.errstate(divide="ignore"):
            inverse = np.float32(1) / self.steps
        inverse[~np.isfinite(inverse)] = 0  # a sub-block without a scale: any code has the same value
        self._inverse: Floats = inverse

    def blocks(self) -> Blocks:
        def rows_first(values: NDArray[np.generic] | None) -> NDArray[np.generic] | None:
            return None if values is None else values.T

        return Blocks(
            self.codes.T,
            self.d.T,
            rows_first(self.scales),  # type: ignore[arg-type]
            rows_first(self.m),  # type: ignore[arg-type]
            rows_first(self.mins),  # type: ignore[arg-type]
            rows_first(self.negative),  # type: ignore[arg-type]
        )

    def levels(self) -> Floats:
        """The level of each weight, (columns, rows)."""
        grid = self.grid
        if grid.entries is None:
            return grid.level(self.codes)
        assert self.negative is not None
        found = np.empty(self.weights.shape, np.float32)
        for place in range(grid.group):
            found[place :: grid.group] = grid.entries[self.codes, place]
        return np.where(self.negative, -found, found)

    def values(self) -> Floats:
        """The weights that are stored, (columns, rows)."""
        found = np.repeat(self.steps, self.grid.sub, axis=0) * self.levels()
        return found if self.offsets is None else found - np.repeat(self.offsets, self.grid.sub, axis=0)

    def choose(self, first: int, wanted: Floats, importance: Floats) -> Choice:
        """The values for the vector of columns that begins at `first` which are nearest to `wanted`, (columns, rows).

        `importance`, (columns,), weighs the columns of a codebook's vector."""
        grid, sub = self.grid, first // self.grid.sub
        if grid.entries is not None:
            return self._choose_entries(sub, wanted, importance)
        step, offsets = self.steps[sub], self.offsets
        if offsets is None:
            codes = grid.nearest(wanted * self._inverse[sub])
            return Choice(grid.level(codes) * step, codes)
        codes = grid.nearest((wanted + offsets[sub]) * self._inverse[sub])
        return Choice(grid.level(codes) * step - offsets[sub], codes)

    def _choose_entries(self, sub: int, wanted: Floats, importance: Floats) -> Choice:
        grid, entries = self.grid, self.grid.entries
        assert entries is not None
        levels = wanted * self._inverse[sub]
        negative = levels < 0
        sizes = np.abs(levels)
        if grid.has_parity:
            odd = np.flatnonzero(np.logical_xor.reduce(negative, axis=0))
            # The sign that costs least to invert. Its size counts as negative: then the entry is chosen for that.
            cheapest = np.argmin(importance[:, None] * np.square(sizes[:, odd]), axis=0)
            negative[cheapest, odd] ^= True
            sizes[cheapest, odd] *= -1
        codes = np.empty((len(wanted) // grid.group, wanted.shape[1]), np.uint16)
        chosen = np.empty_like(wanted)
        for part in range(len(codes)):
            place = slice(part * grid.group, (part + 1) * grid.group)
            weights = importance[place]
            costs = np.square(entries) @ weights - 2 * (sizes[place].T @ (entries * weights).T)
            codes[part] = costs.argmin(axis=1)
            chosen[place] = entries[codes[part]].T
        values = np.where(negative, -chosen, chosen) * self.steps[sub]
        return Choice(values, codes, negative)

    def take(self, first: int, choice: Choice, where: NDArray[np.bool_] | None = None) -> None:
        """Keep a choice, in all rows or those of `where`."""
        grid = self.grid
        code = first // grid.group
        kept = np.s_[:] if where is None else where
        self.codes[code : code + len(choice.codes), kept] = choice.codes[:, kept]
        if self.negative is not None and choice.negative is not None:
            self.negative[first : first + len(choice.negative), kept] = choice.negative[:, kept]

    def pack(self) -> NDArray[np.uint8]:
        """The bytes of the rows, (rows, bytes of a row)."""
        return self.grid.pack(self.blocks())
