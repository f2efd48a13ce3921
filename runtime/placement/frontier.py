"""The fastest split of a pipeline, found pool by pool from the last. Numbers in, numbers out.

But for the memory of pool 0, which may serve the others' routed experts, no pool has to do with another. So of the
splits of the last layers over the last pools only those can be part of the best that are faster than all that ask less
of pool 0: a short list for each first layer, a frontier of (seconds, bytes asked). Splits whose seconds are the same
within a share so small that all pools together make less than a thousandth count as one (after Warburton, Operations
Research 35, 1987). Branching, as HiGHS does it and prima.cpp uses it, takes seconds where this takes hundredths of one;
that both agree, and agree with all splits there are, is what the tests look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.placement.split_program import Program, Solution, alone, alone_lacking

GAP = 1e-3  # of the seconds: no split is faster by more

_SKIP, _HOLD, _LAST = range(3)


@dataclass(frozen=True, slots=True)
class _Labels:
    """Splits of the layers from `at` on, sorted by `at`: seconds, bytes asked of pool 0, and how each came about: the
    kind of step, the layers at which the two stages of the pool end, and which split comes after."""

    at: Any
    seconds: Any
    asked: Any
    kind: Any
    middle: Any
    end: Any
    after: Any

    @classmethod
    def of(cls, *columns: Any) -> _Labels:
        import numpy

        return cls(*(numpy.asarray(each) for each in columns))

    def columns(self) -> tuple[Any, ...]:
        return self.at, self.seconds, self.asked, self.kind, self.middle, self.end, self.after


def fastest(program: Program) -> Solution | None:
    """The split with the fewest seconds, within `GAP`; `value` are seconds. None where nothing fits."""
    if len(program.stages) == 1:
        return alone(program)
    return _Frontier(program).best()


def lacking(program: Program) -> int:
    """Bytes that pool 0 lacks at least, whatever the split; 0 where one fits."""
    return alone_lacking(program) if len(program.stages) == 1 else _Frontier(program).least_lack()


class _Frontier:
    def __init__(self, program: Program) -> None:
        import numpy

        self.program = program
        self.layers = len(program.stages[0].own)
        self.share = GAP / (2 * len(program.pools))

        def running(sizes: Sequence[float]) -> Any:
            return numpy.concatenate(([0.0], numpy.cumsum(numpy.array(sizes, float))))

        self.seconds, self.own, self.home, self.pinned = (
            [running(getattr(stage, name)) for stage in program.stages] for name in ("seconds", "own", "home", "pinned")
        )

    def best(self) -> Solution | None:
        import numpy

        steps = self._steps()
        found = [(self._whole(labels, head=number == 0), number) for number, labels in enumerate(steps[-1])]
        values = [(seconds.min(), number, int(seconds.argmin())) for seconds, number in found if len(seconds)]
        value, number, at = min(values)
        return self._followed(steps, number, at, float(value)) if numpy.isfinite(value) else None

    def least_lack(self) -> int:
        program, pool = self.program, self.program.pools[0]
        lacks = []
        for number, labels in enumerate(self._steps()[-1]):
            taken = labels.asked + self.own[0][labels.at] + pool.use + (pool.head if number == 0 else 0)
            if program.reload is not None:
                taken = program.pinned + self.pinned[0][labels.at]
            lacks += [float((taken - pool.memory).min())] if len(taken) else []
        return max(0, round(min(lacks)))

    def _steps(self) -> list[tuple[_Labels, _Labels]]:
        """Before each pool from the last on: the splits that leave the head at home, and those that do not."""
        nothing = _Labels.of([self.layers], [0.0], [0.0], [_SKIP], [0], [0], [0])
        steps = [(nothing, _Labels(*(each[:0] for each in nothing.columns())))]
        for pool in reversed(range(1, len(self.program.pools))):
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
        """Seconds of the whole split, with pool 0 before the labels; infinite where that has no room."""
        import numpy

        program, pool = self.program, self.program.pools[0]
        seconds = labels.seconds + self.seconds[0][labels.at] + pool.use_seconds + (pool.head_seconds if head else 0.0)
        taken = labels.asked + self.own[0][labels.at] + pool.use + (pool.head if head else 0)
        excess = numpy.maximum(taken - pool.memory, 0.0)
        if program.reload is None:
            return numpy.where(excess > 0, numpy.inf, seconds)
        routed = numpy.minimum(excess, self.home[0][labels.at] + labels.asked)
        seconds = seconds + routed * program.reload.routed + (excess - routed) * program.reload.always
        return numpy.where(program.pinned + self.pinned[0][labels.at] > pool.memory, numpy.inf, seconds)

    def _held(self, pool: int, head: int = 0, ends: int = 1) -> tuple[Any, ...]:
        """Every way for a pool to hold layers that fits, and that no other with the same layers beats: columns of first
        layer, end of its first stage, end, seconds, bytes asked of pool 0. `ends` is the first end that counts."""
        import numpy

        room = self.program.pools[pool].memory - self.program.pools[pool].use - head
        stages = [number for number, stage in enumerate(self.program.stages) if stage.pool == pool]
        first, last = stages[0], stages[-1]
        at = numpy.arange(self.layers + 1)
        saved = self.own[last] - self.own[first]  # by leaving the experts of all layers before this one at home
        slower = self.seconds[first] - self.seconds[last]
        ways = [(at[:0], at[:0], at[:0])]
        for begin in range(self.layers):
            end = at[max(begin + 1, ends) :]
            if first == last:
                end = end[self.own[first][end] - self.own[first][begin] <= room]
                ways.append((numpy.full_like(end, begin), end, end))
                continue
            needed = self.own[last][end] - self.own[last][begin] - room
            least = begin + numpy.searchsorted(saved[begin:] - saved[begin], needed, side="left")
            for stop, middle in zip(end[least <= end], least[least <= end], strict=True):
                better = numpy.minimum.accumulate(slower[middle : stop + 1])
                record = numpy.concatenate(([True], better[1:] < better[:-1]))
                middles = at[middle : stop + 1][record]
                ways.append((numpy.full_like(middles, begin), middles, numpy.full_like(middles, stop)))
        start, middle, end = (numpy.concatenate(each) for each in zip(*ways, strict=True))
        seconds = self.seconds[first][middle] - self.seconds[first][start] + self.program.pools[pool].use_seconds
        asked = self.home[first][middle] - self.home[first][start]
        if first != last:
            seconds = seconds + self.seconds[last][end] - self.seconds[last][middle]
        return start, middle, end, seconds, asked

    def _held_with_head(self, pool: int) -> tuple[Any, ...]:
        """The same for the last pool that is used, which has the head as well, or the head alone."""
        import numpy

        one = self.program.pools[pool]
        start, middle, end, seconds, asked = self._held(pool, one.head, self.layers)
        if one.use + one.head <= one.memory:
            start, middle, end = (numpy.append(each, self.layers) for each in (start, middle, end))
            seconds, asked = numpy.append(seconds, one.use_seconds), numpy.append(asked, 0.0)
        return start, middle, end, seconds + one.head_seconds, asked

    def _pruned(self, parts: Sequence[_Labels]) -> _Labels:
        """Only what is faster than all that ask less, and of what is as good as equal the one that asks least."""
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

    def _followed(self, steps: Sequence[tuple[_Labels, ...]], number: int, at: int, value: float) -> Solution:
        """The split that a label stands for."""
        cut = int(steps[-1][number].at[at])
        starts, head = [0, cut], 0
        for pool, step in enumerate(reversed(steps[1:]), 1):
            labels = step[number]
            stages = sum(stage.pool == pool for stage in self.program.stages)
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
    return _Labels(labels.at, labels.seconds, labels.asked, nothing + _SKIP, nothing, nothing, numpy.arange(count))


def _joined(held: tuple[Any, ...], labels: _Labels, kind: int) -> _Labels:
    """Every way for a pool to hold layers, before every label that begins where it ends."""
    import numpy

    start, middle, end, seconds, asked = held
    low, high = (numpy.searchsorted(labels.at, end, side=side) for side in ("left", "right"))
    count = high - low
    way = numpy.repeat(numpy.arange(len(start)), count)
    after = numpy.arange(len(way)) - numpy.repeat(numpy.cumsum(count) - count - low, count)
    return _Labels(
        start[way],
        seconds[way] + labels.seconds[after],
        asked[way] + labels.asked[after],
        numpy.full(len(way), kind),
        middle[way],
        end[way],
        after,
    )
