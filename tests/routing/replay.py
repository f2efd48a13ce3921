"""Replays a trace: how many experts are read from the disk under a policy, and under the best possible one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.from_disk.weights import Policy
from tests.routing.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """`reads` of each pass, (passes,), in units; `needed` likewise; `most` is the largest number of units in memory."""

    reads: NDArray[np.int64]
    needed: NDArray[np.int64]
    most: int

    @property
    def hit_rate(self) -> float:
        """The share of needed units that were in memory."""
        return 1 - float(self.reads.sum() / self.needed.sum())


def replay(trace: Trace, policy: Policy, capacity: int) -> Replayed:
    """Replays `trace` from an empty memory with room for `capacity` units, by the rule of the executor.

    When the router of a layer has chosen: `used`, then units of the least worth are dropped until the missing ones fit,
    but never one that this layer needs; then the missing ones are read. Raises ValueError if a layer needs more units
    than `capacity`.
    """
    _check(trace, capacity)
    resident = np.zeros(trace.units, bool)
    reads = np.zeros(trace.passes, np.int64)
    needed = np.zeros(trace.passes, np.int64)
    most = 0
    for number in range(trace.passes):
        for layer in range(trace.layers):
            wanted = trace.needed(number, layer)
            policy.used(layer, trace.counts[number, layer])
            missing = wanted[~resident[wanted]]
            over = int(resident.sum()) + len(missing) - capacity
            if over > 0:
                resident[to_drop(policy.worth(layer), resident, wanted, over)] = False
            resident[missing] = True
            reads[number] += len(missing)
            needed[number] += len(wanted)
            most = max(most, int(resident.sum()))
    return Replayed(reads, needed, most)


def to_drop(
    worth: NDArray[np.floating], resident: NDArray[np.bool_], wanted: NDArray[np.intp], count: int
) -> NDArray[np.intp]:
    """The `count` resident units of least worth, without the wanted ones; of equal worth, the lowest number."""
    free = resident.copy()
    free[wanted] = False
    candidates = np.flatnonzero(free)
    return candidates[np.argsort(worth[candidates], kind="stable")[:count]]


def belady(trace: Trace, capacity: int) -> Replayed:
    """The least possible number of reads: units whose next use is farthest are dropped (Belady, IBM Systems Journal
    5(2), 1966).

    It stays optimal when a layer needs several units at once: to keep a unit between two uses takes one place in each
    step between. At the first step with too few places, one of the units that cross it must go, and the one whose next
    use is farthest takes places in all later steps that any other takes. Raises ValueError as `replay`.
    """
    return replay(trace, _Foresight(trace), capacity)


class _Foresight:
    """Knows the trace: the worth of a unit is the nearness of its next use."""

    def __init__(self, trace: Trace) -> None:
        self._uses = [
            np.append(np.flatnonzero(used), trace.passes)
            for used in trace.counts.reshape(trace.passes, trace.units).T > 0
        ]
        self._at = np.zeros(trace.units, np.intp)
        self._next = np.array([uses[0] for uses in self._uses]) * trace.layers + np.repeat(
            np.arange(trace.layers), trace.experts
        )
        self._experts, self._layers = trace.experts, trace.layers

    def used(self, layer: int, counts: NDArray[np.integer]) -> None:
        for unit in np.flatnonzero(counts) + layer * self._experts:
            self._at[unit] += 1
            self._next[unit] = self._uses[unit][self._at[unit]] * self._layers + layer

    def worth(self, layer: int) -> NDArray[np.floating]:
        return -self._next.astype(np.float64)


def _check(trace: Trace, capacity: int) -> None:
    if capacity < trace.most_at_once:
        raise ValueError(f"room for {capacity} experts, but a layer needs {trace.most_at_once} at once")
