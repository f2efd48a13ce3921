"""The second opinion on a split: the same problem as an integer problem, solved with HiGHS.

Every layer has its own size, so a cut between two stages is a row of binaries that fall once from one to zero.
`runtime.placement.split_solver` takes a twentieth of the time, which is why plans are made with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.placement.split_problem import Solution, SplitProblem, Stage, missing_memory_single, solve_single

_MEMORY_SLACK = 1e-8  # of a pool; the solver is exact to a tenth of it
_SETTINGS: dict[str, bool | int | float] = {
    "output_flag": False,
    "threads": 1,
    "mip_rel_gap": 1e-3,
    "mip_abs_gap": 0.0,
    "mip_feasibility_tolerance": 1e-9,
    "primal_feasibility_tolerance": 1e-9,
    # What follows brings programs of this kind nothing, and takes half of the time.
    "mip_allow_restart": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
}


def solve(problem: SplitProblem) -> Solution | None:
    """The split with the fewest seconds, within a thousandth; `value` are seconds. None where nothing fits."""
    if len(problem.stages) == 1:
        return solve_single(problem)
    return _Model(problem).solve(lacking=False)


def missing_memory(problem: SplitProblem) -> int:
    """Bytes that pool 0 lacks at least, whatever the split; 0 where one fits."""
    if len(problem.stages) == 1:
        return missing_memory_single(problem)
    found = _Model(problem).solve(lacking=True)
    assert found is not None, "with memory enough pool 0 holds everything"
    return round(found.value)


def longest_run(sizes: Sequence[int], memory: int) -> int:
    """The largest number of neighbours whose sum is at most `memory`."""
    best = first = total = 0
    for last, size in enumerate(sizes):
        total += size
        while total > memory and first <= last:
            total -= sizes[first]
            first += 1
        best = max(best, last + 1 - first)
    return best


class _Model:
    """Columns: cut[layer, stage] (all stages but the last) is 1 where the layer is in this stage or one before;
    used[pool]; head[pool]; two overflows of pool 0 and its lack, in units of its memory."""

    def __init__(self, problem: SplitProblem) -> None:
        self.problem = problem
        self.layers = len(problem.stages[0].held)
        self.cuts = len(problem.stages) - 1
        pools = len(problem.pools)
        self.used = self.layers * self.cuts
        self.head = self.used + pools
        self.over = self.head + pools
        self.columns = self.over + 3
        self.unit = float(max(problem.pools[0].memory, 1 << 20))
        self.rows: list[tuple[float, Any, Any]] = []
        self._limits()

    def _zeros(self) -> Any:
        import numpy

        return numpy.zeros(self.columns)

    def held(self, stage: int, weights: Sequence[float], into: Any) -> float:
        """Add the sum of `weights` of the layers that the stage holds; what is constant of it is returned."""
        layers = range(self.layers)
        if stage > 0:
            into[[self._cut(layer, stage - 1) for layer in layers]] -= weights
        if stage < self.cuts:
            into[[self._cut(layer, stage) for layer in layers]] += weights
            return 0.0
        return float(sum(weights))

    def _cut(self, layer: int, stage: int) -> int:
        return layer * self.cuts + stage

    def _limit(self, entries: dict[int, float], upper: float) -> None:
        self.rows.append((upper, list(entries), list(entries.values())))

    def _limits(self) -> None:
        problem, over = self.problem, self.over
        for layer in range(self.layers):
            for stage in range(self.cuts):
                if layer + 1 < self.layers:
                    self._limit({self._cut(layer + 1, stage): 1, self._cut(layer, stage): -1}, 0)
                if stage + 1 < self.cuts:
                    self._limit({self._cut(layer, stage): 1, self._cut(layer, stage + 1): -1}, 0)
        for number, pool in enumerate(problem.pools):
            own = [index for index, stage in enumerate(problem.stages) if stage.pool == number]
            if number:
                self._use(number, own)
            row = self._zeros()
            row[self.used + number] += pool.fixed
            row[self.head + number] += pool.head
            fixed = sum(self.held(index, problem.stages[index].held, row) for index in own)
            if number == 0:
                fixed += sum(self.held(n, stage.pool0, row) for n, stage in enumerate(problem.stages) if stage.pool)
                row[over : over + 3] = -self.unit
                self._home(row, -fixed)
            else:  # tighter than the memory alone: none of it without use
                row[self.used + number] -= pool.memory * (1 - _MEMORY_SLACK)
                scale = max(pool.memory, 1 << 20)
                self._dense(row / scale, -fixed / scale)
        for index in range(1, len(problem.stages)):
            self._longest(index, problem.stages[index])
        row = self._zeros()
        fixed = self.held(0, problem.stages[0].pinned, row)
        row[over + 2] = -self.unit
        self._home(row, -problem.pinned - fixed)
        row = self._zeros()  # of the routed experts no more overflows than there is
        row[over] = self.unit
        fixed = sum(self.held(n, [-each for each in stage.pool0], row) for n, stage in enumerate(problem.stages))
        self._dense(row / self.unit, -fixed / self.unit)

    def _use(self, pool: int, stages: list[int]) -> None:
        """Whatever a pool holds makes it used, and the head is with the last that is used, or with pool 0: so each is
        visited once."""
        for layer in range(self.layers):
            row = self._zeros()
            weights = [0.0] * self.layers
            weights[layer] = 1.0
            fixed = sum(self.held(stage, weights, row) for stage in stages)
            row[self.used + pool] -= 1
            self._dense(row, -fixed)
        self._limit({self.head + pool: 1, self.used + pool: -1}, 0)
        for later in range(pool + 1, len(self.problem.pools)):
            self._limit({self.head + pool: 1, self.used + later: 1}, 1)

    def _longest(self, index: int, stage: Stage) -> None:
        """No stage holds more layers than the longest run that fits. Follows from the memory, and tells the solver what
        it would find by branching: a second instead of five."""
        pool = self.problem.pools[stage.pool]
        row = self._zeros()
        row[self.used + stage.pool] -= longest_run(stage.held, pool.memory - pool.fixed)
        fixed = self.held(index, [1.0] * self.layers, row)
        self._dense(row, -fixed)

    def _home(self, row: Any, more: float) -> None:
        """What is held in pool 0, less its overflows, is at most its memory and `more`."""
        self._dense(row / self.unit, (self.problem.pools[0].memory + more) / self.unit - _MEMORY_SLACK)

    def _dense(self, row: Any, upper: float) -> None:
        indices = row.nonzero()[0]
        self.rows.append((upper, indices, row[indices]))

    def solve(self, *, lacking: bool) -> Solution | None:
        import highspy
        import numpy

        problem, over = self.problem, self.over
        costs = self._zeros()
        fixed = 0.0
        upper = numpy.ones(self.columns)
        lower = self._zeros()
        lower[self.used] = 1
        upper[over : over + 3] = numpy.inf
        if lacking:
            costs[over + 2] = 1.0
        else:
            upper[over + 2] = 0
            for number, pool in enumerate(problem.pools):
                costs[self.used + number] += pool.fixed_seconds
                costs[self.head + number] += pool.head_seconds
            fixed = sum(self.held(n, stage.seconds, costs) for n, stage in enumerate(problem.stages))
        if problem.reload is None:
            upper[over : over + 2] = 0
        elif not lacking:
            costs[over], costs[over + 1] = (
                self.unit * problem.reload.routed,
                self.unit * problem.reload.always,
            )
        scale = float(abs(costs).max()) or 1.0
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = self.columns, len(self.rows) + 1
        model.col_cost_, model.col_lower_, model.col_upper_ = costs / scale, lower, upper
        heads = numpy.arange(self.head, over)
        model.row_lower_ = numpy.array([-numpy.inf] * len(self.rows) + [1.0])
        model.row_upper_ = numpy.array([upper for upper, _, _ in self.rows] + [1.0])
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = numpy.cumsum([0, *(len(indices) for _, indices, _ in self.rows), len(heads)])
        model.a_matrix_.index_ = numpy.concatenate([*(indices for _, indices, _ in self.rows), heads])
        model.a_matrix_.value_ = numpy.concatenate([*(values for _, _, values in self.rows), numpy.ones(len(heads))])
        kinds = [highspy.HighsVarType.kInteger] * over + [highspy.HighsVarType.kContinuous] * 3
        model.integrality_ = kinds
        solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, setting in _SETTINGS.items():
            solver.setOptionValue(option, setting)
        solver.passModel(model)
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        values = numpy.asarray(solver.getSolution().col_value)
        cut = values[: self.used].reshape(self.layers, self.cuts).round().astype(int)
        starts = (0, *(int(each) for each in cut.sum(axis=0)), self.layers)
        value = float(values[over + 2] * self.unit) if lacking else float(costs @ values) + fixed
        return Solution(starts, int(values[self.head : over].argmax()), value)
