"""Sweeps that lower the loss of codes: scales are fitted to the codes, then codes to the scales, one at a time.

Each step is exact in the loss e^T H e and is kept only where it gains, so the loss never rises (coordinate descent as
in QuantEase, arXiv 2309.01885).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.round.working import Working

Floats = NDArray[np.float32]

_BLOCK = 32  # columns whose gradients are computed in one matrix product


def descend(working: Working, damped: Floats, errors: Floats) -> None:
    """Choose each code again while all others stay. `errors`, (columns, rows), are weights minus values, and are
    updated."""
    columns, vector = len(damped), working.grid.vector
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        gradients = damped[start:end] @ errors
        moved = np.zeros_like(gradients)
        for at in range(start, end, vector):
            own, past = damped[at : at + vector, at : at + vector], at + vector
            gradient = gradients[at - start : past - start]
            if at > start:
                gradient -= damped[at:past, start:at] @ moved[: at - start]
            step = _nearer(working, at, own, gradient, errors)
            moved[at - start : past - start] = step
            errors[at:past] -= step


def _nearer(working: Working, at: int, own: Floats, gradient: Floats, errors: Floats) -> Floats:
    """Choose the vector of columns at `at` again, and return by how much its values change."""
    past = at + len(own)
    now = working.weights[at:past] - errors[at:past]
    if len(own) == 1:
        choice = working.choose(at, now + gradient / own[0, 0], own[0])
        working.take(at, choice)
        return choice.values - now
    # The nearest in a codebook is found with the diagonal of H alone, so the exact change decides.
    choice = working.choose(at, now + np.linalg.solve(own, gradient), np.diagonal(own).copy())
    step = choice.values - now
    change = np.einsum("vr,vr->r", step, own @ step - 2 * gradient)
    gains = change < 0
    working.take(at, choice, gains)
    return np.asarray(step * gains, np.float32)


def fit_scales(working: Working, damped: Floats, errors: Floats) -> None:
    """Fit the scales and mins to the codes, block by block: first each sub-block's, then d and m together."""
    grid = working.grid
    levels = working.levels()
    for number in range(len(working.d)):
        begin, end = number * grid.kind.block, (number + 1) * grid.kind.block
        block = _Block(working, number, levels[begin:end], damped[begin:end, begin:end], damped[begin:end] @ errors)
        block.fit()
        errors[begin:end] -= block.moved
    working.settle()


class _Block:
    """The scales of one block of columns in all rows. `moved` is by how much its values have changed."""

    def __init__(self, working: Working, number: int, levels: Floats, own: Floats, gradient: Floats) -> None:
        self._working, self._number, self._grid = working, number, working.grid
        self._levels, self._own, self._gradient = levels, own, gradient
        self.moved = np.zeros_like(levels)

    def fit(self) -> None:
        working, number = self._working, self._number
        if working.scales is not None:
            for place in range(self._grid.kind.block // self._grid.sub):
                self._fit_sub_block(place)
        scale_side, min_side = self._sides()
        along = self._own @ scale_side
        slope, bend = _dot(scale_side, self._gradient), _dot(scale_side, along)
        if min_side is None:
            d_step, m_step = _ratio(slope, bend), np.zeros_like(slope)
            m_slope = m_bend = mixed = m_step
        else:
            m_slope, m_bend = _dot(min_side, self._gradient), _dot(min_side, self._own @ min_side)
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
        self.moved += scale_side * np.where(gains, d_step, 0)
        if working.m is not None and min_side is not None:
            working.m[number, gains] = np.float16(self._grid.m_sign) * new_m[gains]
            self.moved += min_side * np.where(gains, m_step, 0)

    def _fit_sub_block(self, place: int) -> None:
        working, grid = self._working, self._grid
        assert working.scales is not None
        at = self._number * (grid.kind.block // grid.sub) + place
        columns = slice(place * grid.sub, (place + 1) * grid.sub)
        by_scale = self._levels[columns] * (np.float32(grid.step) * working.d[self._number].astype(np.float32))
        self._step_codes(working.scales[at], grid.most_scale, columns, by_scale)
        if working.mins is not None and working.m is not None:
            m = grid.m_sign * working.m[self._number].astype(np.float32)
            by_min = np.broadcast_to(-m, (grid.sub, len(m)))
            self._step_codes(working.mins[at], grid.most_scale, columns, by_min)

    def _step_codes(self, codes: NDArray[np.uint16], most: int, columns: slice, side: Floats) -> None:
        """Move each row's code by whole steps; one step changes the values of `columns` by `side`."""
        slope = _dot(side, self._gradient[columns])
        bend = _dot(side, self._own[columns, columns] @ side)
        now = codes.astype(np.float32)
        new = np.clip(now + np.rint(_ratio(slope, bend)), 0, most)
        steps = new - now
        if steps.any():
            codes[:] = new.astype(np.uint16)
            moved = side * steps
            self.moved[columns] += moved
            self._gradient -= self._own[:, columns] @ moved

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
