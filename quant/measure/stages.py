"""Divides the matrices of a model into stages: those of one stage do not compute from each other's products. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from quant.measure.graph_cuts import Cut, Graph
from quant.measure.moment_sums import Input


@dataclass(frozen=True, slots=True)
class Stage:
    """Inputs of matrices that are rounded together. `start` is the cut in front of them (None: the text)."""

    inputs: tuple[Input, ...]
    start: Cut | None

    @property
    def weights(self) -> frozenset[str]:
        return frozenset(name for each in self.inputs for name in each.weights)

    @property
    def first(self) -> int:
        """The number of the first node that multiplies with one of the matrices."""
        return min(each.node for each in self.inputs)

    @property
    def last(self) -> int:
        return max(each.node for each in self.inputs)


def divided(inputs: Sequence[Input], products: Mapping[int, str], graph: Graph) -> list[tuple[Input, ...]]:
    """Inputs in the order in which their matrices can be rounded. `products` has the matrix of each product, by the
    number of its node."""
    level: dict[int, int] = {}  # by root: how many matrices led to it, one after the other
    of_input = {name: each for each in inputs for name in each.weights}
    found: dict[int, int] = {}
    for number, step in enumerate(graph.steps):
        reached = max((level.get(root, 0) for root in (step.root, *step.reads)), default=0)
        if (each := of_input.get(products.get(number, ""))) is not None:
            found[id(each)] = max(found.get(id(each), 0), reached)
            reached += 1
        level[step.root] = reached
    levels = sorted(set(found.values()))
    return [tuple(each for each in inputs if found.get(id(each)) == at) for at in levels]


def stages_of(inputs: Sequence[Input], products: Mapping[int, str], graph: Graph) -> Iterator[Stage]:
    """The stages, each with the cut from which its inputs are reached fastest."""
    start: Cut | None = None
    for each in divided(inputs, products, graph):
        first = min(one.node for one in each)
        start = graph.best(start.index if start else 0, first) or start
        yield Stage(each, start)


def passes_of(stages: Sequence[Stage], left: Sequence[bool]) -> int:
    """How often a stream runs the text until all stages of `left` are collected; the others are gone by."""
    count, original, rounded = 0, None, None
    for number, (stage, after) in enumerate(pairwise((*stages, None))):
        assert stage is not None
        if not any(left[number:]):
            break
        if left[number]:
            count += 2 + (original != stage.start)
            original = stage.start if after is None else after.start
        else:
            count += rounded != stage.start
        rounded = stage.start
    return count


def work_of(stages: Sequence[Stage], graph: Graph) -> int:
    """The multiplications of both streams' passes for all stages, for the short text."""
    work = [0, *accumulate(step.work for step in graph.steps)]
    total, before = 0, None
    for stage, after in pairwise((*stages, None)):
        assert stage is not None
        ends = stage.last if graph.end(stage.last) is None else stage.last + 1  # the last product is not computed
        total += work[ends] - work[before.index + 1 if before else 0]
        kept = after.start.index + 1 if after is not None and after.start is not None else 0
        total += work[max(ends, kept)] - work[stage.start.index + 1 if stage.start else 0]
        before = stage.start
    return total
