"""Scales: from values to places on an axis, and the round numbers for its ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 5.0)
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps the values `low` to `high` to the places `begin` to `end`, in units of the picture."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool

    def at(self, value: float) -> float:
        low, high, here = (self._stretched(each) for each in (self.low, self.high, value))
        return self.begin + (here - low) / (high - low) * (self.end - self.begin)

    def _stretched(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self, most: int) -> tuple[float, ...]:
        """Round values from `low` to `high`, about `most` of them at most."""
        if self.logarithmic:
            return _powers(self.low, self.high, most)
        step = _round_step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(number * step for number in range(first, last + 1))


def fitting(values: Sequence[float], begin: float, end: float, *, logarithmic: bool, zero: bool = False) -> Scale:
    """A scale for all values with 6 % room at its ends; with `zero`, a linear scale begins at 0.

    The values of a logarithmic scale must be above 0.
    """
    low, high = min(values), max(values)
    if logarithmic:
        room = max(0.06 * math.log10(high / low), 0.06)
        return Scale(low / 10**room, high * 10**room, begin, end, True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return Scale(low if zero and low == 0 else low - room, high + room, begin, end, False)


def _round_step(least: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(least))
    return next((step * power for step in _STEPS if step * power >= least * 0.999), 10 * power)


def _powers(low: float, high: float, most: int) -> tuple[float, ...]:
    """Powers of ten; between them 2 and 5 times the power if there is room, else only every nth power."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in (_STEPS, (1.0, 3.0), (1.0,)):
        found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        inside = tuple(value for value in found if low <= value <= high)
        if len(inside) <= most:
            break
    else:
        inside = inside[:: -(-len(inside) // most)]
    if len(inside) < 2:  # the range is narrower than a step: ticks as on a linear axis
        inside = tuple(value for value in Scale(low, high, 0, 1, False).ticks(most) if value > 0)
    return inside


def written(value: float) -> str:
    """The label of a tick: '0.0005', '1 500', '10⁻⁶'."""
    if value == 0:
        return "0"
    if abs(value) < 0.9999e-4 or abs(value) >= 1e7:
        factor, power = f"{value:.0e}".split("e")
        ten = f"10{str(int(power)).translate(_SUPERSCRIPTS)}"
        return ten if factor == "1" else f"{factor}·{ten}"
    return f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 1000 else f"{value:.4g}"


def spread(values: Sequence[float], wide: float = 20) -> bool:
    """Whether a logarithmic axis is better: the largest value is more than `wide` times the smallest."""
    return bool(values) and max(values) > wide * min(values)


def unit(sizes: Sequence[float]) -> tuple[float, str]:
    """The unit for these sizes, in bytes, and its name: that of the largest."""
    return (1 << 30, "GiB") if max(sizes, default=0) >= 1 << 30 else (1 << 20, "MiB")
