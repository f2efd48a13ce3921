"""The best type for every tensor under a size: a multiple-choice knapsack, solved to a proven gap. Pure and fast.

`plan_of_size` makes the plan of a file, `allocate` solves the knapsack. Method: the Lagrangian relaxation (its best
multiplier is the slope at which the convex hulls of all tensors, walked in the order of loss saved per byte, fill the
budget; Sinha and Zoltners 1979) gives a lower bound and a first assignment. Options whose reduced cost exceeds the gap
between the two are in no better assignment; among the few that are left a dynamic program over Pareto-optimal pairs of
bytes and cost finds the best, after Pisinger (1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quant.gguf.writer import ALIGNMENT, tensor_bytes
from quant.plan import QuantPlan, TensorPlan, make_plan, planned
from quant.recipe.mixtures import engine_order, file_type_of, kept_type, quantizable
from quant.sources.source import Source, TensorSpec
from quant.to_a_size.losses import Losses, candidates
from runtime.base.errors import DoesNotFit
from runtime.base.types import ByteCount

# Partial assignments that are kept at once. Beyond it those with the highest cost are dropped, and the gap tells.
_MOST_STATES = 20_000


@dataclass(frozen=True, slots=True)
class Option:
    """One type for a tensor: bytes in the file, and the loss that is predicted."""

    type: str
    bytes: int
    loss: float

    def __post_init__(self) -> None:
        if self.bytes < 0 or not (0 <= self.loss < math.inf):
            raise ValueError(f"{self.type}: {self.bytes} bytes at a loss of {self.loss}")


@dataclass(frozen=True, slots=True)
class Allocation:
    """`picks` is the number of the option of each item. No assignment within the budget has a loss below `bound`."""

    picks: tuple[int, ...]
    bytes: int
    loss: float
    bound: float

    @property
    def gap(self) -> float:
        """The share of its loss by which the assignment may miss the best one. 0: it is proven to be the best."""
        return max(self.loss - self.bound, 0.0) / self.loss if self.loss else 0.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A plan for a size. `predicted_kld` in nats, None where the model was not measured; `gap` is the share of
    the predicted loss by which the plan may miss the best one of its size."""

    plan: QuantPlan
    predicted_kld: float | None
    gap: float


def smallest_plan(source: Source, *, weighted: bool = False) -> QuantPlan:
    """The smallest file that can be made. Nothing is measured for it. `weighted`: all tensors but the embedding will
    have an importance."""

    def smallest(tensor: TensorSpec) -> TensorPlan:
        has_importance = source.has_importance(tensor.name) or (weighted and tensor.role != "embedding")
        types = candidates(tensor, importance=has_importance)
        return planned(tensor, min(types, key=lambda name: tensor_bytes(name, tensor.shape)), "the smallest type")

    return _made(map(smallest, sorted(source.tensors, key=engine_order)), source)


def _made(tensors: Iterable[TensorPlan], source: Source) -> QuantPlan:
    listed = list(tensors)
    return make_plan(listed, source, file_type_of(listed))


def check_budget(smallest: QuantPlan, budget: int, source: Source) -> None:
    """Raise DoesNotFit, with the smallest possible size, for a budget that no choice of types keeps."""
    if smallest.bytes > budget:
        raise DoesNotFit(
            f"the smallest possible file of this model has {smallest.bytes} ({int(smallest.bytes)} bytes), "
            f"and {ByteCount(max(budget, 0))} ({int(budget)} bytes) are allowed",
            hint=None if source.importance else "with an importance matrix (--imatrix) smaller types are possible",
        )


def plan_of_size(source: Source, budget: int, losses: Losses, weights: Mapping[str, float] | None = None) -> Fitted:
    """The file of at most `budget` bytes, header included, that loses least. `losses` must be measured with the
    importance matrix of `source`; `weights` are nats per unit of each tensor's loss.

    Without weights the loss of each tensor counts alike. Raises DoesNotFit, with the smallest possible size.
    """
    listed = sorted(source.tensors, key=engine_order)
    free = [tensor for tensor in listed if quantizable(tensor)]
    options = [
        [
            Option(kind, _stored_bytes(kind, tensor), loss * (1.0 if weights is None else weights[tensor.name]))
            for kind, loss in losses[tensor.name].items()
        ]
        for tensor in free
    ]

    def plan(picks: Sequence[int]) -> QuantPlan:
        picked = {
            tensor.name: _planned(tensor, each[pick], measured=weights is not None)
            for tensor, each, pick in zip(free, options, picks, strict=True)
        }
        chosen = [picked.get(tensor.name) or planned(tensor, kept_type(tensor), "not quantized") for tensor in listed]
        return _made(chosen, source)

    smallest = plan([min(range(len(each)), key=lambda n, each=each: each[n].bytes) for each in options])  # type: ignore[misc]
    # Header, metadata and tensors that are not quantized take the same bytes in every choice.
    rest = smallest.bytes - sum(min(option.bytes for option in each) for each in options)
    check_budget(smallest, budget, source)
    found = allocate(options, budget - rest)
    made = plan(found.picks)
    if weights is None:
        warning = "how much each tensor matters was not measured on the model: only its own error decided its type"
        made = replace(made, warnings=(*made.warnings, warning))
    return Fitted(made, None if weights is None else found.loss, found.gap)


def _stored_bytes(kind: str, tensor: TensorSpec) -> int:
    return -(-tensor_bytes(kind, tensor.shape) // ALIGNMENT) * ALIGNMENT


def _planned(tensor: TensorSpec, option: Option, *, measured: bool) -> TensorPlan:
    loss = f"predicted to cost {option.loss:.2g} nats" if measured else f"a relative error of {option.loss:.2g}"
    return planned(tensor, option.type, f"bits where they matter: {loss}")


def allocate(items: Sequence[Sequence[Option]], budget: int) -> Allocation:
    """Pick one option of each item, so that the sum of bytes is at most `budget` and the sum of losses least.

    Raises DoesNotFit when even the smallest options are larger.
    """
    least = sum(min(option.bytes for option in options) for options in items)
    if least > budget:
        raise DoesNotFit(f"no choice of types is below {ByteCount(least)}, and {ByteCount(max(budget, 0))} are allowed")
    hulls = [_hull(options) for options in items]
    price, picks = _greedy(items, hulls, budget)
    best = _allocation(items, picks, -math.inf)
    if not price:  # every item has its least loss
        return _allocation(items, picks, best.loss)
    # Lagrange: with a price per byte each item's cheapest option is found alone; the sum less the price of the budget
    # is below every assignment that keeps it.
    lowest = [min(option.loss + price * option.bytes for option in options) for options in items]
    bound = math.fsum(lowest) - price * budget
    slack = max(best.loss - bound, 0.0)
    # Sums of floats are not exact: a loss within rounding of the bound counts as equal.
    if slack <= 1e-12 * max(best.loss, 1e-300):
        return _allocation(items, picks, best.loss)
    better, dropped = _search(items, lowest, price, budget, slack)
    if better is not None:
        found = _allocation(items, tuple(better), -math.inf)
        best = min(best, found, key=lambda allocation: allocation.loss)
    return _allocation(items, best.picks, min(best.loss, bound + dropped))


def _allocation(items: Sequence[Sequence[Option]], picks: Sequence[int], bound: float) -> Allocation:
    chosen = [options[pick] for options, pick in zip(items, picks, strict=True)]
    return Allocation(tuple(picks), sum(o.bytes for o in chosen), math.fsum(o.loss for o in chosen), bound)


def _hull(options: Sequence[Option]) -> list[int]:
    """Options on the lower convex hull of loss over bytes, from the smallest on: each step saves less per byte."""
    hull: list[int] = []
    for index in sorted(range(len(options)), key=lambda n: (options[n].bytes, options[n].loss)):
        option = options[index]
        if hull and option.loss >= options[hull[-1]].loss:
            continue
        while len(hull) > 1 and _saved(options[hull[-2]], options[hull[-1]]) <= _saved(options[hull[-1]], option):
            hull.pop()
        hull.append(index)
    return hull


def _saved(smaller: Option, larger: Option) -> float:
    """Loss per byte. Options of equal size never meet here: of those only the first enters a hull."""
    return (smaller.loss - larger.loss) / (larger.bytes - smaller.bytes)


def _greedy(
    items: Sequence[Sequence[Option]], hulls: Sequence[Sequence[int]], budget: int
) -> tuple[float, tuple[int, ...]]:
    """Walk the hulls. Returns the price at which the budget is full (0 when it never is) and an assignment."""
    picks = [hull[0] for hull in hulls]
    used = sum(options[pick].bytes for options, pick in zip(items, picks, strict=True))
    steps = sorted(
        (
            (-_saved(options[one], options[other]), n, one, other)
            for n, (options, hull) in enumerate(zip(items, hulls, strict=True))
            for one, other in pairwise(hull)
        ),
    )
    price = 0.0
    for slope, n, one, other in steps:
        more = items[n][other].bytes - items[n][one].bytes
        if picks[n] == one and used + more <= budget:
            picks[n] = other
            used += more
        elif not price:
            price = -slope
    return price, tuple(picks)


def _search(
    items: Sequence[Sequence[Option]], lowest: Sequence[float], price: float, budget: int, slack: float
) -> tuple[list[int] | None, float]:
    """The assignment whose loss is least and less than bound + slack, None without one; and the least cost above the
    bound of anything that was not looked at.

    The loss of an assignment is bound + its reduced costs + price x bytes left over, so both must stay below `slack`.
    """
    kept = [
        [n for n, option in enumerate(options) if option.loss + price * option.bytes - low <= slack]
        for options, low in zip(items, lowest, strict=True)
    ]
    picks = [options[0] for options in kept]
    fixed = [n for n, options in enumerate(kept) if len(options) == 1]
    room = budget - sum(items[n][kept[n][0]].bytes for n in fixed)
    opened = sorted(
        (n for n, options in enumerate(kept) if len(options) > 1),
        key=lambda n: sorted(items[n][k].loss + price * items[n][k].bytes for k in kept[n])[1] - lowest[n],
    )
    sizes = [np.array([items[n][k].bytes for k in kept[n]], np.int64) for n in opened]
    costs = [np.array([items[n][k].loss + price * items[n][k].bytes for k in kept[n]]) - lowest[n] for n in opened]
    rest_least = np.cumsum([0, *(int(size.min()) for size in reversed(sizes))])[::-1]
    rest_most = np.cumsum([0, *(int(size.max()) for size in reversed(sizes))])[::-1]

    used, cost = np.zeros(1, np.int64), np.zeros(1)
    trail: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    dropped = math.inf
    for depth, (size, extra) in enumerate(zip(sizes, costs, strict=True), 1):
        count = len(size)
        all_used = (used[:, None] + size).ravel()
        all_cost = (cost[:, None] + extra).ravel()
        left_over = np.maximum(room - all_used - rest_most[depth], 0)
        possible = np.flatnonzero((all_used + rest_least[depth] <= room) & (all_cost + price * left_over <= slack))
        # Pareto: keep a state only if no state of at most its size has a lower loss.
        order = possible[np.lexsort((all_cost[possible] - price * all_used[possible], all_used[possible]))]
        loss = all_cost[order] - price * all_used[order]
        before = np.minimum.accumulate(np.concatenate(([np.inf], loss[:-1])))
        order = order[loss < before]
        if len(order) > _MOST_STATES:
            cheapest = np.argpartition(all_cost[order], _MOST_STATES)
            dropped = min(dropped, float(all_cost[order[cheapest[_MOST_STATES:]]].min()))
            order = order[np.sort(cheapest[:_MOST_STATES])]
        if not order.size:
            return None, dropped
        trail.append((order // count, order % count))
        used, cost = all_used[order], all_cost[order]
    total = cost + price * (room - used)
    state = int(total.argmin())
    dropped = min(dropped, float(total[state]))
    for n, (parents, choices) in zip(reversed(opened), reversed(trail), strict=True):
        picks[n] = kept[n][int(choices[state])]
        state = int(parents[state])
    return picks, dropped
