"""`dsr experts show`: which experts the profiled tasks use, as tables, JSON and a heat map."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsr.experts.profile import profile_store
from dsr.models.model import Model
from dsr.ui.charts.heat_map import HeatMap
from quant.experts.expert_tensors import routed_layers
from quant.experts.profile import Profile, router_digest
from runtime.base.errors import BadModelFile, Incompatible, NotFound
from runtime.base.types import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quant.measure.imatrix import Routing
    from runtime.gguf.card import ModelCard

FRACTIONS = (0.25, 0.5, 0.75)
_HALF = FRACTIONS.index(0.5)
HEADER = ("task", "questions", "tokens", *(f"best {part:.0%}" for part in FRACTIONS), "never used")
LAYER_HEADER = ("layer", *(f"best {part:.0%}" for part in FRACTIONS), "never used")
LEGEND = "best N %: share of the routing weight on the best N % of a layer's experts; never used: by this text"
OVERLAP_LEGEND = "each cell: share of the row's routing weight on the best half of the experts of the column's task"
MAPS_NOTE = "Each expert's share of the routing weight in its layer, as a multiple of an even share."
_TASKS_ABREAST = 12
_EXPERTS_NAMED = 12


@dataclass(frozen=True, slots=True, eq=False)
class LayerView:
    """One layer for one task. `shares` is each expert's share of the routing weight, with sum 1. `coverage` is the sum
    of the best shares, for each of FRACTIONS. `unreached` are the experts that no token was sent to."""

    shares: NDArray[np.float64]
    coverage: tuple[float, ...]
    unreached: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TaskView:
    """One profile, by layer."""

    profile: Profile
    layers: Mapping[int, LayerView]

    @property
    def coverage(self) -> tuple[float, ...]:
        """The mean over the layers."""
        rows = [layer.coverage for layer in self.layers.values()]
        return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))

    @property
    def unreached(self) -> int:
        return sum(len(layer.unreached) for layer in self.layers.values())


@dataclass(frozen=True, slots=True, eq=False)
class ProfilesView:
    """All profiled tasks of a model, or one of them.

    `overlap[a][b]` is the share of task a's routing weight on the best half of task b's experts, mean over the layers.
    `problems` has a line for each profile that cannot be read.
    """

    model: str
    digest: str
    experts: int
    active: int
    tasks: tuple[TaskView, ...]
    overlap: tuple[tuple[float, ...], ...]
    problems: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "digest": self.digest,
            "experts": self.experts,
            "active": self.active,
            "fractions": list(FRACTIONS),
            "tasks": [_task_json(task) for task in self.tasks],
            "overlap": [[round(value, 4) for value in row] for row in self.overlap],
            "problems": list(self.problems),
        }


def view_profiles(model: Model, task: str | None = None) -> ProfilesView:
    """Reads the profiles of a model, or that of `task`. Raises NotFound without any, Incompatible for a dense model."""
    card = model.card
    routed_layers(card)
    digest, store = router_digest(card), profile_store()
    names = store.tasks(digest) if task is None else (task,)
    if not names:
        raise NotFound(
            f"{card.name} has no profile yet",
            hint=f"make one: dsr experts profile {shlex.quote(model.absolute_reference)}",
        )
    tasks, problems = [], []
    for name in names:
        try:
            tasks.append(task_of(_fitting(store.get(digest, name), card)))
        except (BadModelFile, Incompatible) as error:
            if task is not None:
                raise
            problems.append(error.message)
    return ProfilesView(
        model=model.absolute_reference,
        digest=digest,
        experts=card.experts,
        active=card.experts_used,
        tasks=tuple(tasks),
        overlap=overlap(tasks),
        problems=tuple(problems),
    )


def _fitting(profile: Profile, card: ModelCard) -> Profile:
    if tuple(profile.routing) != routed_layers(card) or profile.experts != card.experts:
        raise Incompatible(
            f"the profile of {profile.task} is of {len(profile.routing)} layers with {profile.experts} experts, "
            f"the model has {len(routed_layers(card))} with {card.experts}",
            hint=f"make it again: dsr experts profile MODEL --task {profile.task} --force",
        )
    return profile


def task_of(profile: Profile) -> TaskView:
    """The view of one profile."""
    layers = {}
    for number, routing in profile.routing.items():
        part = shares(routing)
        coverage = tuple(_best(part, each) for each in FRACTIONS)
        layers[number] = LayerView(part, coverage, profile.unreached.get(number, ()))
    return TaskView(profile, layers)


def shares(routing: Routing) -> NDArray[np.float64]:
    """Each expert's share of the routing weight, or of the selections if the model has no routing weights."""
    import numpy as np

    given = np.maximum(routing.weight, 0)
    if not given.any():
        given = routing.selected.astype(np.float64)
    return given / max(float(given.sum()), np.finfo(np.float64).tiny)


def _best(part: NDArray[np.float64], fraction: float) -> float:
    return float(part[_ranked(part, fraction)].sum())


def _ranked(part: NDArray[np.float64], fraction: float) -> NDArray[np.int64]:
    """The best `fraction` of the experts, rounded up; of equal experts the first."""
    import numpy as np

    return np.argsort(-part, kind="stable")[: -int(-len(part) * fraction // 1)]


def overlap(tasks: Sequence[TaskView]) -> tuple[tuple[float, ...], ...]:
    """`ProfilesView.overlap`."""
    best = [
        {number: _ranked(layer.shares, FRACTIONS[_HALF]) for number, layer in task.layers.items()} for task in tasks
    ]

    def carried(task: TaskView, chosen: Mapping[int, NDArray[np.int64]]) -> float:
        parts = [float(layer.shares[chosen[number]].sum()) for number, layer in task.layers.items()]
        return sum(parts) / len(parts)

    return tuple(tuple(carried(task, chosen) for chosen in best) for task in tasks)


def heat_map(tasks: Sequence[TaskView]) -> HeatMap:
    """A row for each layer with each expert's share as a multiple of an even share: the mean of the tasks."""
    rows = []
    for number in tasks[0].layers:
        each = [task.layers[number].shares for task in tasks]
        means = (float(sum(parts)) / len(tasks) * len(each[0]) for parts in zip(*each, strict=True))
        rows.append((f"layer {number}", tuple(means)))
    return HeatMap(tasks[0].profile.task if len(tasks) == 1 else "all tasks", tuple(rows))


def table(tasks: Sequence[TaskView]) -> list[list[str]]:
    """Rows of HEADER."""
    return [
        [
            task.profile.task,
            str(len(task.profile.keys)) if len(task.profile.keys) else "text",
            str(task.profile.tokens),
            *(f"{value:.1%}" for value in task.coverage),
            f"{task.unreached} of {len(task.layers) * task.profile.experts}",
        ]
        for task in tasks
    ]


def layer_table(task: TaskView) -> list[list[str]]:
    """Rows of LAYER_HEADER."""
    return [
        [str(number), *(f"{value:.1%}" for value in layer.coverage), experts_in_words(layer.unreached)]
        for number, layer in task.layers.items()
    ]


def experts_in_words(experts: Sequence[int]) -> str:
    """'none', '3, 9', or the first dozen and how many more."""
    named = ", ".join(map(str, experts[:_EXPERTS_NAMED]))
    rest = len(experts) - _EXPERTS_NAMED
    return (f"{named} and {rest} more" if rest > 0 else named) or "none"


def overlap_tables(result: ProfilesView) -> list[tuple[list[str], list[list[str]]]]:
    """Headers and rows; several tables for many tasks."""
    tables = []
    for first in range(0, len(result.tasks), _TASKS_ABREAST):
        columns = range(first, min(first + _TASKS_ABREAST, len(result.tasks)))
        header = ["", "", *(str(number + 1) for number in columns)]
        rows = [
            [str(number + 1), task.profile.task, *(f"{result.overlap[number][column]:.0%}" for column in columns)]
            for number, task in enumerate(result.tasks)
        ]
        tables.append((header, rows))
    return tables


def title(result: ProfilesView) -> str:
    """'nano: 2 tasks, 16 experts in each of 3 layers, 4 for each token'"""
    layers = len(result.tasks[0].layers) if result.tasks else 0
    return (
        f"{result.model}: {counted(len(result.tasks), 'task')}, {result.experts} experts in each of "
        f"{counted(layers, 'layer')}, {result.active} for each token"
    )


def heat_legend(result: ProfilesView, per_cell: int) -> str:
    """What the values of the heat map mean, and what a cell is."""
    whose = f"the task {result.tasks[0].profile.task}" if len(result.tasks) == 1 else "all tasks, their mean"
    several = f"; a cell is the most used of {per_cell} experts" if per_cell > 1 else ""
    return f"times an even share of the routing weight; {whose}{several}"


def _task_json(task: TaskView) -> dict[str, Any]:
    profile = task.profile
    return {
        "task": profile.task,
        "questions": len(profile.keys),
        "tokens": profile.tokens,
        "origin": profile.origin,
        "coverage": [round(value, 6) for value in task.coverage],
        "layers": [
            {
                "layer": number,
                "coverage": [round(value, 6) for value in layer.coverage],
                "unreached": list(layer.unreached),
                "shares": [round(float(value), 6) for value in layer.shares],
                "selected": profile.routing[number].selected.tolist(),
            }
            for number, layer in task.layers.items()
        ],
    }
