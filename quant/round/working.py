"""Rows of a matrix while their codes are chosen. Arrays have the columns first, so that a column is contiguous."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from quant.round.grids import Blocks, Grid

Floats = NDArray[np.float32]

_TURN = Lock()
_SEARCHED = 256  # rows whose entries are searched together: their costs stay in the processor's caches
_TILE = 16  # rows that are turned into columns together: a wide matrix does not fit in the caches


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Entries of a codebook for a vector of columns: `codes`, (codes, rows), and `levels`, (columns, rows), with
    their signs."""

    codes: NDArray[np.uint16]
    levels: Floats


class Working:
    """`weights` and `levels` are (columns, rows); `steps` and `offsets` are (sub-blocks, rows). `codes`, (codes, rows),
    are those of a codebook, and None elsewhere: there the levels tell them."""

    def __init__(self, grid: Grid, weights: Floats, stored: NDArray[np.uint8]) -> None:
        """From rows, (rows, columns), and how the engine's quantizer stored them."""
        blocks = grid.unpack(stored)
        self.grid = grid
        self.weights = _columns_first(weights)
        self.levels = grid.all_levels(blocks)
        self.codes = None if grid.entries is None else blocks.codes
        self.d, self.m, self.scales, self.mins = blocks.d, blocks.m, blocks.scales, blocks.mins
        self.steps = grid.steps(blocks)
        self.offsets = grid.offsets(blocks)
        self.inverse = _inverse(self.steps)

    def turn(self) -> AbstractContextManager[object]:
        """To be held while codes are chosen column by column, so that one thread at a time does it.

        Short calls of numpy from two threads hand Python's lock to and fro, and took 2.5 times as long as from one.
        Meanwhile others compute products. The search in a codebook is a long call."""
        return _TURN if self.grid.entries is None else nullcontext()

    def settle(self, number: int) -> None:
        """Recompute `steps` and `offsets` of block `number` after its scales have changed."""
        grid = self.grid
        subs = grid.kind.block // grid.sub
        own = slice(number * subs, (number + 1) * subs)
        blocks = Blocks(
            np.empty(0, np.uint16),
            self.d[number : number + 1],
            None if self.scales is None else self.scales[own],
            None if self.m is None else self.m[number : number + 1],
            None if self.mins is None else self.mins[own],
        )
        self.steps[own] = grid.steps(blocks)
        self.inverse[own] = _inverse(self.steps[own])
        offsets = grid.offsets(blocks)
        if self.offsets is not None and offsets is not None:
            self.offsets[own] = offsets

    def errors(self) -> Floats:
        """The weights minus the values that are stored, (columns, rows)."""
        found = np.empty_like(self.weights)
        by_sub = found.reshape(len(self.steps), self.grid.sub, -1)
        np.multiply(self.levels.reshape(by_sub.shape), self.steps[:, None], out=by_sub)
        if self.offsets is not None:
            by_sub -= self.offsets[:, None]
        return np.subtract(self.weights, found, out=found)

    def nearest_entries(self, sub: int, levels: Floats, importance: Floats) -> Choice:
        """The entries of the codebook nearest to `levels`, (columns, rows), of a vector of columns in sub-block `sub`.

        `importance`, (columns,), weighs the columns."""
        grid, entries = self.grid, self.grid.entries
        assert entries is not None
        negative = levels < 0
        sizes = np.abs(levels)
        if grid.has_parity:
            odd = np.flatnonzero(np.logical_xor.reduce(negative, axis=0))
            # The sign that costs least to invert. Its size counts as negative: then the entry is chosen for that.
            cheapest = np.argmin(importance[:, None] * np.square(sizes[:, odd]), axis=0)
            negative[cheapest, odd] ^= True
            sizes[cheapest, odd] *= -1
        codes = np.empty((len(levels) // grid.group, levels.shape[1]), np.uint16)
        chosen = np.empty_like(levels)
        for part in range(len(codes)):
            place = slice(part * grid.group, (part + 1) * grid.group)
            weights = importance[place]
            fixed, scaled = np.square(entries) @ weights, -2 * (entries * weights).T
            for first in range(0, levels.shape[1], _SEARCHED):
                costs = sizes[place, first : first + _SEARCHED].T @ scaled
                costs += fixed
                codes[part, first : first + _SEARCHED] = costs.argmin(axis=1)
            chosen[place] = entries[codes[part]].T
        np.negative(chosen, out=chosen, where=negative)
        return Choice(codes, chosen)

    def take(self, first: int, choice: Choice, where: NDArray[np.bool_] | None = None) -> None:
        """Keep entries for the vector of columns that begins at `first`, in all rows or those of `where`."""
        assert self.codes is not None
        code, kept = first // self.grid.group, True if where is None else where
        np.copyto(self.codes[code : code + len(choice.codes)], choice.codes, where=kept)
        np.copyto(self.levels[first : first + len(choice.levels)], choice.levels, where=kept)

    def pack(self) -> NDArray[np.uint8]:
        """The bytes of the rows, (rows, bytes of a row)."""
        book = self.codes is not None
        codes = self.codes if self.codes is not None else self.grid.codes(self.levels)
        negative = self.levels < 0 if book else None
        return self.grid.pack(Blocks(codes, self.d, self.scales, self.m, self.mins, negative))


def _inverse(steps: Floats) -> Floats:
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / steps
    inverse[~np.isfinite(inverse)] = 0  # a sub-block without a scale: any code has the same value
    return inverse


def _columns_first(rows: Floats) -> Floats:
    found = np.empty(rows.shape[::-1], np.float32)
    for start in range(0, len(rows), _TILE):
        found[:, start : start + _TILE] = rows[start : start + _TILE].T
    return found
