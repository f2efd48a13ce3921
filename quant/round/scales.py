"""Fits the scales and mins of a block to its codes: first each sub-block's, then d and m together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.round.working import Working

Floats = NDArray[np.float32]


def fit_block(working: Working, number: int, own: Floats, gradient: Floats) -> Floats:
    """Fit the scales of block `number` of all rows, and return by how much its values change, (columns, rows).

    `own` is the block's part of H, `gradient` H @ errors of its columns; the gradient is updated."""
    block = _Block(working, number, own, gradient)
    block.fit()
    working.settle(number)
    return block.moved


class _Block:
    """The scales of one block of columns in all rows. `moved` is by how much its values have changed."""

    def __init__(self, working: Working, number: int, own: Floats, gradient: Floats) -> None:
        self._working, self._number, self._grid = working, number, working.grid
        block = working.grid.kind.block
        self._levels = working.levels[number * block : (number + 1) * block]
        self._own, self._gradient = own, gradient
        self.moved = np.zeros_like(gradient)

    def fit(self) -> None:
        working, number = self._working, self._number
        if working.scales is not None:
            for place in range(self._grid.kind.block // self._grid.sub):
                self._fit_sub_block(place)
            self._gradient -= self._own @ self.moved
        scale_side, min_side = self._sides()
        along = self._own @ scale_side
        slope, bend = _dot(scale_side, self._gradient), _dot(scale_side, along)
        if min_side is None:
            d_step, m_step = _ratio(slope, bend), np.zeros_like(slope)
            m_slope = m_bend = mixed = m_step
        else:
            m_along = self._own @ min_side
            m_slope, m_bend = _dot(min_side, self._gradient), _dot(min_side, m_along)
            mixed = _dot(min_side, along)
            d_step, m_step = _solved(slope, bend, m_slope, m_bend, mixed)
        d = working.d[number].astype(np.float32)
        new_d = _float16(d + d_step)
        d_step = new_d.astype(np.float32) - d
        if working.m is not None:
            m = self._grid.m_sign * working.m[number].astype(np.float32)
            new_m = _float16(m + m_step)
            m_step = new_m.astype(np.float32) - m
        change = d_step * (d_step * bend + 2 * m_step * mixed - 2 * slope) + m_step * (m_step * m_bend - 2 * m_slope)
        gains = change < 0  # false for what is not finite
        working.d[number, gains] = new_d[gains]
        d_step = np.where(gains, d_step, 0)
        self.moved += scale_side * d_step
        self._gradient -= along * d_step
        if working.m is not None and min_side is not None:
            working.m[number, gains] = np.float16(self._grid.m_sign) * new_m[gains]
            m_step = np.where(gains, m_step, 0)
            self.moved += min_side * m_step
            self._gradient -= m_along * m_step

    def _fit_sub_block(self, place: int) -> None:
        """Fit a sub-block's scale, then its min. The gradient follows once all sub-blocks have moved."""
        working, grid = self._working, self._grid
        assert working.scales is not None
        at = self._number * (grid.kind.block // grid.sub) + place
        begin, end = place * grid.sub, (place + 1) * grid.sub
        own, moved = self._own[begin:end, begin:end], self.moved[begin:end]
        gradient = self._gradient[begin:end]
        if begin:
            gradient = gradient - self._own[begin:end, :begin] @ self.moved[:begin]
        by_scale = self._levels[begin:end] * (np.float32(grid.step) * working.d[self._number].astype(np.float32))
        slope, bend = _dot(by_scale, gradient), _dot(by_scale, own @ by_scale)
        moved += by_scale * _step_codes(working.scales[at], grid.most_scale, slope, bend)
        if working.mins is not None and working.m is not None:
            m = grid.m_sign * working.m[self._number].astype(np.float32)  # one step of the min changes values by -m
            slope = m * (own.sum(axis=0) @ moved - gradient.sum(axis=0))
            moved -= m * _step_codes(working.mins[at], grid.most_scale, slope, own.sum() * m * m)

    def _sides(self) -> tuple[Floats, Floats | None]:
        """By how much the values change when d, and when m, grows by one."""
        working, grid, number = self._working, self._grid, self._number
        subs = grid.kind.block // grid.sub
        own = slice(number * subs, (number + 1) * subs)
        scale_side = self._levels
        if working.scales is not None:
            scale_side = scale_side * np.repeat(grid.factors(working.scales[own]), grid.sub, axis=0)
        if working.m is None:
            return scale_side, None
        if working.mins is None:
            return scale_side, np.full_like(scale_side, -1)
        return scale_side, -np.repeat(working.mins[own].astype(np.float32), grid.sub, axis=0)


def _step_codes(codes: NDArray[np.uint16], most: int, slope: Floats, bend: Floats) -> Floats:
    """Move each row's code by whole steps to where the loss is least, and return the steps."""
    now = codes.astype(np.float32)
    new = np.clip(now + np.rint(_ratio(slope, bend)), 0, most)
    codes[:] = new.astype(np.uint16)
    return np.asarray(new - now)


def _dot(one: Floats, other: Floats) -> Floats:
    """The scalar product of the columns, (rows,)."""
    return np.asarray(np.einsum("cr,cr->r", one, other))


def _ratio(slope: Floats, bend: Floats) -> Floats:
    """slope / bend, 0 where that is not finite."""
    with np.errstate(all="ignore"):
        found = slope / bend
    return np.where(np.isfinite(found), found, np.float32(0))


def _solved(slope: Floats, bend: Floats, m_slope: Floats, m_bend: Floats, mixed: Floats) -> tuple[Floats, Floats]:
    """The steps of d and m that fit best together; of d alone where the two are almost parallel."""
    determinant = bend * m_bend - mixed * mixed
    apart = determinant > 1e-6 * bend * m_bend
    d_step = np.where(apart, _ratio(slope * m_bend - m_slope * mixed, determinant), _ratio(slope, bend))
    m_step = np.where(apart, _ratio(m_slope * bend - slope * mixed, determinant), np.float32(0))
    return d_step, m_step


def _float16(values: Floats) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)
