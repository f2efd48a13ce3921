"""What a matrix is rounded towards when its inputs differ from those of the original."""

from __future__ import annotations

import numpy as np
import pytest

from quant.round.cross import Inputs
from quant.round.moment import Moment


@pytest.mark.parametrize("type_name", ["Q4_0", "IQ2_XS"])
def test_the_target_meets_the_original_outputs_best(type_name: str) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(256, 256)) / 16
    x = rng.normal(size=(4000, 256)).astype(np.float32) @ mixing.astype(np.float32)
    y = x @ (np.eye(256) + rng.normal(size=(256, 256)) / 100).astype(np.float32)
    weights = rng.normal(size=(5, 256)).astype(np.float32)
    moment = Moment(y.T @ y, len(y))
    found = Inputs(moment, (x - y).T @ y / len(y)).target(weights, type_name)
    wanted = weights + weights @ ((x - y).T @ y / len(y)) @ np.linalg.inv(moment.damped)
    assert np.allclose(found, wanted, atol=1e-3)
    before, after = (np.square(x @ weights.T - y @ each.T).sum() for each in (weights, found))
    assert after < 0.35 * before


def test_inputs_of_the_original_change_nothing() -> None:
    weights = np.ones((2, 32), np.float32)
    assert Inputs(Moment(np.eye(32, dtype=np.float32), 1)).target(weights, "Q4_0") is weights


@pytest.mark.parametrize(("columns", "vector"), [(300, 1), (600, 4), (768, 8)])
def test_a_factor_solves(columns: int, vector: int) -> None:
    rng = np.random.default_rng(columns)
    x = rng.normal(size=(2 * columns, columns)).astype(np.float32) * rng.uniform(0.1, 3, columns).astype(np.float32)
    moment = Moment(x.T @ x, len(x))
    wanted = rng.normal(size=(columns, 3))
    seen: list[float] = []
    found = moment.factor(vector).solved(wanted, seen.append)
    assert np.allclose(moment.damped.astype(np.float64) @ found, wanted, atol=1e-4)
    assert seen == sorted(seen)
    assert seen[-1] == 1
