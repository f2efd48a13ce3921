"""Solves a `SplitProblem`: the fastest split of a pipeline, found pool by pool from the last one.

Pools depend on each other only through the memory of pool 0, which may hold the experts of other pools. So a split of
the last layers over the last pools can be part of the best split only if every faster one takes more of pool 0. For
each first layer these splits form a short Pareto frontier of (seconds, bytes in pool 0). Splits with nearly equal
seconds count as one; the error stays below `GAP` (Warburton, Operations Research 35, 1987). Branch and bound, as in
HiGHS and prima.cpp, takes seconds where this takes hundredths of a second. Tests compare both with all splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.placement.split_problem import Solution, SplitProblem, missing_memory_single, solve_single

GAP = 1e-3  # no split is faster than the result by a larger share of the seconds

_SKIP, _HOLD, _LAST = range(3)


@dataclass(frozen=True, slots=True)
class _Labels:
    """Splits of the layers from `at` on, sorted by `at`: seconds, bytes in pool 0, and how each was made.

    `kind` is the step of the pool, `middle` and `end` are the layers at which its two stages end, and `after` is the
    index of the split that follows.
    """

    at: Any
    seconds: Any
    pool0: Any
    kind: Any
    middle: Any
    end: Any
    after: Any

    @classmethod
    def of(cls, *columns: Any) -> _Labels:
        import numpy

        return cls(*(numpy.asarray(each) for each in columns))

    def columns(self) -> tuple[Any, ...]:
        return self.at, self.seconds, self.pool0, self.kind, self.middle, self.end, self.after


def solve(problem: SplitProblem) -> Solution | None:
    """The fastest split, within `GAP`; None if nothing fits. `value` is in seconds."""
    if len(problem.stages) == 1:
        return solve_single(problem)
    return _Frontier(problem).best()


def missing_memory(problem: SplitProblem) -> int:
    """The least bytes that pool 0 lacks over all splits; 0 if one fits."""
    return missing_memory_single(problem) if len(problem.stages) == 1 else _Frontier(problem).least_missing()


class _Frontier:
    def __init__(self, problem: SplitProblem) -> None:
        import numpy

        self.problem = problem
        self.layers = len(problem.stages[0].held)
        self.share = GAP / (2 * len(problem.pools))

        def running(sizes: Sequence[float]) -> Any:
            return numpy.concatenate(([0.0], numpy.cumsum(numpy.array(sizes, float))))

        self.seconds, self.held, self.pool0, self.pinned = (
            [running(getattr(stage, name)) for stage in problem.stages]
            for name in ("seconds", "held", "pool0", "pinned")
        )

    def best(self) -> Solution | None:
        import numpy

        steps = self._steps()
        found = [(self._whole(labels, head=number == 0), number) for number, labels in enumerate(steps[-1])]
        values = [(seconds.min(), number, int(seconds.argmin())) for seconds, number in found if len(seconds)]
        value, number, at = min(values)
        return self._solution(steps, number, at, float(value)) if numpy.isfinite(value) else None

    def least_missing(self) -> int:
        problem, pool = self.problem, self.problem.pools[0]
        lacks = []
        for number, labels in enumerate(self._steps()[-1]):
            taken = labels.pool0 + self.held[0][labels.at] + pool.fixed + (pool.head if number == 0 else 0)
            if problem.reload is not None:
                taken = problem.pinned + self.pinned[0][labels.at]
            lacks += [float((taken - pool.memory).min())] if len(taken) else []
        return max(0, round(min(lacks)))

    def _steps(self) -> list[tuple[_Labels, _Labels]]:
        """The labels before each pool, from the last: splits with the head in pool 0, and splits with it elsewhere."""
        nothing = _Labels.of([self.layers], [0.0], [0.0], [_SKIP], [0], [0], [0])
        steps = [(nothing, _Labels(*(each[:0] for each in nothing.columns())))]
        for pool in reversed(range(1, len(self.problem.pools))):
            held, last = self._held(pool), self._held_with_head(pool)
            without, placed = steps[-1]
            steps.append(
                (
                    self._pruned([_skipped(without), _joined(held, without, _HOLD)]),
                    self._pruned([_skipped(placed), _joined(held, placed, _HOLD), _joined(last, nothing, _LAST)]),
                )
            )
        return steps

    def _whole(self, labels: _Labels, *, head: bool) -> Any:
        """The seconds of whole splits: the labels with pool 0 before them; infinite where pool 0 is too small."""
        import numpy

        problem, pool = self.problem, self.problem.pools[0]
        seconds = (
            labels.seconds + self.seconds[0][labels.at] + pool.fixed_seconds + (pool.head_seconds if head else 0.0)
        )
        taken = labels.pool0 + self.held[0][labels.at] + pool.fixed + (pool.head if head else 0)
        excess = numpy.maximum(taken - pool.memory, 0.0)
        if problem.reload is None:
            return numpy.where(excess > 0, numpy.inf, seconds)
        routed = numpy.minimum(excess, self.pool0[0][labels.at] + labels.pool0)
        seconds = seconds + routed * problem.reload.routed + (excess - routed) * problem.reload.always
        return numpy.where(problem.pinned + self.pinned[0][labels.at] > pool.memory, numpy.inf, seconds)

    def _held(self, pool: int, head: int = 0, ends: int = 1) -> tuple[Any, ...]:
        """Every way for a pool to hold layers that fits and is not slower than another with the same layers.

        Columns: first layer, end of the first stage, end, seconds, bytes in pool 0. `ends` is the first end to try.
        """
        import numpy

        room = self.problem.pools[pool].memory - self.problem.pools[pool].fixed - head
        stages = [number for number, stage in enumerate(self.problem.stages) if stage.pool == pool]
        first, last = stages[0], stages[-1]
        at = numpy.arange(self.layers + 1)
        saved = self.held[last] - self.held[first]  # by leaving the experts of all layers before this one in pool 0
        slower = self.seconds[first] - self.seconds[last]
        ways = [(at[:0], at[:0], at[:0])]
        for begin in range(self.layers):
            end = at[max(begin + 1, ends) :]
            if first == last:
                end = end[self.held[first][end] - self.held[first][begin] <= room]
                ways.append((numpy.full_like(end, begin), end, end))
                continue
            needed = self.held[last][end] - self.held[last][begin] - room
            least = begin + numpy.searchsorted(saved[begin:] - saved[begin], needed, side="left")
            for stop, middle in zip(end[least <= end], least[least <= end], strict=True):
                better = numpy.minimum.accumulate(slower[middle : stop + 1])
                record = numpy.concatenate(([True], better[1:] < better[:-1]))
                middles = at[middle : stop + 1][record]
                ways.append((numpy.full_like(middles, begin), middles, numpy.full_like(middles, stop)))
        start, middle, end = (numpy.concatenate(each) for each in zip(*ways, strict=True))
        seconds = self.seconds[first][middle] - self.seconds[first][start] + self.problem.pools[pool].fixed_seconds
        pool0 = self.pool0[first][middle] - self.pool0[first][start]
        if first != last:
            seconds = seconds + self.seconds[last][end] - self.seconds[last][middle]
        return start, middle, end, seconds, pool0

    def _held_with_head(self, pool: int) -> tuple[Any, ...]:
        """The same for the last pool that is used, which has the head as well, or the head solve_single."""
        import numpy

        one = self.problem.pools[pool]
        start, middle, end, seconds, pool0 = self._held(pool, one.head, self.layers)
        if one.fixed + one.head <= one.memory:
            start, middle, end = (numpy.append(each, self.layers) for each in (start, middle, end))
            seconds, pool0 = numpy.append(seconds, one.fixed_seconds), numpy.append(pool0, 0.0)
        return start, middle, end, seconds + one.head_seconds, pool0

    def _pruned(self, parts: Sequence[_Labels]) -> _Labels:
        """The Pareto frontier: labels faster than all with fewer bytes in pool 0. Of near ties the smallest stays."""
        import numpy

        columns = [numpy.concatenate(each) for each in zip(*(part.columns() for part in parts), strict=True)]
        if not len(columns[0]):
            return _Labels(*columns)
        order = numpy.lexsort((columns[1], columns[2], columns[0]))
        columns = [each[order] for each in columns]
        at, seconds = columns[0], columns[1]
        fastest = numpy.minimum.accumulate(seconds - at * (seconds.max() * 2 + 1))
        columns = [each[numpy.concatenate(([True], fastest[1:] < fastest[:-1]))] for each in columns]
        at, seconds = columns[0], columns[1]
        bucket = numpy.floor(numpy.log(numpy.maximum(seconds, 1e-300)) / numpy.log1p(self.share))
        new = (numpy.diff(at) != 0) | (numpy.diff(bucket) != 0)
        return _Labels(*(each[numpy.concatenate(([True], new))] for each in columns))

    def _solution(self, steps: Sequence[tuple[_Labels, ...]], number: int, at: int, value: float) -> Solution:
        """The split of a label."""
        cut = int(steps[-1][number].at[at])
        starts, head = [0, cut], 0
        for pool, step in enumerate(reversed(steps[1:]), 1):
            labels = step[number]
            stages = sum(stage.pool == pool for stage in self.problem.stages)
            if head or labels.kind[at] == _SKIP:
                starts += [cut] * stages
            else:
                cut = int(labels.end[at])
                starts += [int(labels.middle[at]), cut][-stages:]
                head = pool if labels.kind[at] == _LAST else 0
            at = 0 if head else int(labels.after[at])
        return Solution(tuple(starts), head, value)


def _skipped(labels: _Labels) -> _Labels:
    import numpy

    count = len(labels.at)
    nothing = numpy.zeros(count, int)
    return _Labels(labels.at, labels.seconds, labels.pool0, nothing + _SKIP, nothing, nothing, numpy.arange(count))


def _joined(held: tuple[Any, ...], labels: _Labels, kind: int) -> _Labels:
    """Each way to hold layers joined with each label that begins where it ends."""
    import numpy

    start, middle, end, seconds, pool0 = held
    low, high = (numpy.searchsorted(labels.at, end, side=side) for side in ("left", "right"))
    count = high - low
    way = numpy.repeat(numpy.arange(len(start)), count)
    after = numpy.arange(len(way)) - numpy.repeat(numpy.cumsum(count) - count - low, count)
    return _Labels(
        start[way],
        seconds[way] + labels.seconds[after],
        pool0[way] + labels.pool0[after],
        numpy.full(len(way), kind),
        middle[way],
        end[way],
        after,
    )
