"""How much the loss of each tensor matters: nats of KL divergence per unit of its relative loss. Pure.

A probe replaces some tensors of the model and measures the divergence. Errors of different tensors are independent, so
their divergences add up; the weights follow by least squares, none negative, with a prior that all are alike: the loss
of a tensor is relative to the energy of its output, and on measured models such weights differ by less than a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.recipe.mixtures import quantizable
from quant.sources.source import TensorSpec
from runtime.gguf.tensor_name import parse_name

# A divergence of a few thousand tokens repeats within this share on other text.
_PRECISION = 0.05
# A weight is within this many times the usual one, as the prior has it: loose, so that a probe decides.
_SPREAD = 10.0
_ROUNDS = 2000  # of coordinate descent, which ends earlier where nothing moves
_SMALLEST = 1e-12  # nats: less than any measurement can tell from nothing


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors of one kind in neighbouring layers, which have one weight."""

    name: str
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """The divergence in nats that was measured with tensors of these relative losses."""

    losses: Mapping[str, float]
    divergence: float


def groups(tensors: Sequence[TensorSpec], most: int) -> tuple[Group, ...]:
    """Groups of tensors of one kind and layer. Neighbouring layers are merged where there are more than `most`."""
    names = [(tensor.name, parse_name(tensor.name)) for tensor in tensors if quantizable(tensor)]
    layers = 1 + max((parsed.layer or 0 for _, parsed in names), default=0)

    def divided(parts: int) -> dict[str, list[str]]:
        made: dict[str, list[str]] = {}
        for name, parsed in names:
            part = "" if parsed.layer is None else f" {parsed.layer * parts // layers + 1}/{parts}"
            made.setdefault(f"{parsed.part}{part}", []).append(name)
        return made

    parts = next((parts for parts in range(layers, 1, -1) if len(divided(parts)) <= most), 1)
    return tuple(Group(name, tuple(members)) for name, members in divided(parts).items())


def fit(found: Sequence[Group], probes: Sequence[Probe]) -> dict[str, float]:
    """The weight of each tensor of the groups, from probes."""
    losses = np.array(
        [[sum(probe.losses.get(name, 0.0) for name in each.tensors) for each in found] for probe in probes]
    )
    measured = np.array([max(probe.divergence, _SMALLEST) for probe in probes])
    told = losses.sum(axis=1) > 0
    if not told.any():
        return {name: 1.0 for each in found for name in each.tensors}
    losses, measured = losses[told], measured[told]
    usual = math.exp(float(np.log(measured / losses.sum(axis=1)).mean()))
    rows = losses / (_PRECISION * measured)[:, None]
    prior = 1 / (_SPREAD * usual)
    matrix = rows.T @ rows + np.eye(len(found)) * prior**2
    wanted = rows.sum(axis=0) / _PRECISION + prior**2 * usual
    weights = _not_negative(matrix, wanted, np.full(len(found), usual))
    return {name: float(weight) for each, weight in zip(found, weights, strict=True) for name in each.tensors}


def _not_negative(
    matrix: NDArray[np.float64], wanted: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The x >= 0 with the least x^T matrix x / 2 - wanted^T x, by coordinate descent. The matrix: positive definite."""
    found = start.copy()
    for _ in range(_ROUNDS):
        before = found.copy()
        for number in range(len(found)):
            rest = wanted[number] - matrix[number] @ found + matrix[number, number] * found[number]
            found[number] = max(rest / matrix[number, number], 0.0)
        if np.allclose(before, found, rtol=1e-6, atol=0):
            break
    return found
