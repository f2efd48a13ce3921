"""Predicts bytes and seconds of a step whose weights are partly read from the disk. Pure.

Two assumptions: each token chooses its experts independently of earlier tokens, and reading and computing overlap
(`SHOWN`). Under the first one, no policy that does not know the future reads less than the one that keeps the
most used experts: earlier choices tell nothing more about the next one. Real routers repeat themselves, so a real run
should read less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# The share of the shorter one of reading and computing that is not hidden behind the longer one: 0 where both overlap
# fully, 1 where they alternate. Measured runs (docs/results.md, "Larger than memory") took no longer than the longer.
SHOWN = 0.0
# Seconds that a layer takes to choose what to read and what to drop, for any number of tokens. Measured: 0.7 to 1.5 ms
# on one core (docs/results.md, "Models larger than memory").
_CHOOSING = 1e-3
_NEVER = 1e-9  # of the most used expert's picks: an expert with fewer was practically never chosen
# Layers whose units are in memory or are read ahead while one computes. A dense layer is in use until the one behind it
# begins.
_ROUTED_TOGETHER, _DENSE_TOGETHER = 2, 3


@dataclass(frozen=True, slots=True)
class DiskLayer:
    """A layer with weights on the disk: `experts` units of `size` bytes each, of which each token uses `used`.

    `picks`: how often a text chose each expert; empty: all equally often. A layer of a dense model has one unit.
    """

    size: int
    experts: int = 1
    used: int = 1
    picks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1 or not 1 <= self.used <= self.experts:
            raise ValueError(f"{self.used} of {self.experts} units of {self.size} bytes")
        if self.picks and (len(self.picks) != self.experts or min(self.picks) < 0):
            raise ValueError(f"{len(self.picks)} picks of {self.experts} experts")

    def chances(self, tokens: int = 1) -> tuple[float, ...]:
        """The probability of each unit that at least one of `tokens` tokens uses it."""
        return tuple(1 - (1 - each) ** tokens for each in self._chances())

    def met(self, tokens: int = 1) -> float:
        """The expected number of units that `tokens` tokens use."""
        if not any(self.picks):
            return self.experts * (1 - (1 - self.used / self.experts) ** tokens)
        return sum(self.chances(tokens))

    def _chances(self) -> list[float]:
        """Of one token. They are proportional to `picks`, at most 1, and their sum is `used`."""
        most = max(self.picks, default=0.0)
        if not most:
            return [self.used / self.experts] * self.experts
        found = [0.0] * self.experts
        left, open_ = float(self.used), [n for n, each in enumerate(self.picks) if each > most * _NEVER]
        while open_ and left > 0:
            scale = left / sum(self.picks[n] for n in open_)
            certain = [n for n in open_ if self.picks[n] * scale >= 1]
            if not certain:
                for n in open_:
                    found[n] = self.picks[n] * scale
                return found
            for n in certain:
                found[n] = 1.0
            left -= len(certain)
            open_ = [n for n in open_ if found[n] == 0.0]
        if left > 0:  # the text chose fewer experts than a token uses: the others share the rest
            others = [n for n, each in enumerate(found) if each == 0.0]
            for n in others:
                found[n] = left / len(others)
        return found


@dataclass(frozen=True, slots=True)
class Forecast:
    """A step of `tokens` tokens: the bytes of the units that it `needed`, those that it `read`, and the seconds of
    reading alone and of computing alone, with the choice of what to read."""

    tokens: int
    needed: float
    read: float
    disk_seconds: float
    compute_seconds: float

    @property
    def hit_rate(self) -> float:
        """The share of the needed bytes that are in memory already."""
        return 1 - self.read / self.needed if self.needed else 1.0

    @property
    def seconds(self) -> float:
        shorter, longer = sorted((self.disk_seconds, self.compute_seconds))
        return longer + SHOWN * shorter

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else math.inf

    @property
    def disk_bound(self) -> float:
        """Tokens per second if computing took no time."""
        return self.tokens / self.disk_seconds if self.disk_seconds else math.inf

    @property
    def compute_bound(self) -> float:
        """Tokens per second if all weights were in memory."""
        return self.tokens / self.compute_seconds if self.compute_seconds else math.inf


def smallest_memory(layers: Sequence[DiskLayer]) -> int:
    """The least bytes of units in memory: those of one token in the largest layer, and those that are read ahead."""
    return math.ceil(_working(layers, 1))


def forecast(
    layers: Sequence[DiskLayer], memory: int, disk_speed: float, compute_seconds: float, tokens: int = 1
) -> Forecast:
    """A step of `tokens` tokens that are computed together: samples, or a chunk of a prompt.

    `memory`: bytes for units; `disk_speed` in bytes per second; `compute_seconds`: of the step, with all weights in
    memory. What one layer uses and what is read ahead cannot be kept for later steps.
    """
    classes: list[tuple[float, int]] = []  # chance, and bytes of all units that have it
    for layer in layers:
        if any(layer.picks):
            classes += [(chance, layer.size) for chance in layer.chances(tokens)]
        else:
            classes.append((layer.met(tokens) / layer.experts, layer.size * layer.experts))
    needed = sum(chance * size for chance, size in classes)
    room = max(0.0, memory - _working(layers, tokens))  # without the units that come and go
    read = 0.0
    for chance, size in sorted(classes, key=lambda each: -each[0]):
        kept = min(room, size)
        room -= kept
        read += chance * (size - kept)
    choosing = _CHOOSING * sum(layer.experts > 1 for layer in layers)
    return Forecast(tokens, needed, read, read / disk_speed, compute_seconds + choosing)


def _working(layers: Sequence[DiskLayer], tokens: int) -> float:
    """The bytes of the units that the largest layer uses, with those that are read ahead for the next ones."""
    together = _ROUTED_TOGETHER if any(each.experts > 1 for each in layers) else _DENSE_TOGETHER
    used = [each.size * each.met(tokens) for each in layers]
    return max(sum(used[n : n + together]) for n in range(len(used)))
