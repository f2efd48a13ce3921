"""Rounding: the loss falls, bytes stay valid, and the same bytes come with any number of threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from quant.plan import Effort
from quant.round.feedback import feed_back
from quant.round.grids import TYPES, Grid, grid_of
from quant.round.moment import Factor, Moment
from quant.round.rounding import Rounded, round_rows
from quant.round.scales import fit_block
from quant.round.sweeps import descend, sweep
from quant.round.watch import Watch
from quant.round.working import Working
from runtime.llama import dequantize_rows, quantize_rows

COLUMNS = 256


def moment_of(columns: int = COLUMNS, inputs: int = 1000, seed: int = 0) -> tuple[np.ndarray, Moment]:
    """Inputs whose columns go together, and their moments, as of a hundred times as many."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((columns, columns)) * 0.97 ** np.arange(columns)[:, None]
    x = (random.standard_normal((inputs, columns)) @ mixed).astype(np.float32)
    return x, Moment(100 * x.T @ x, 100 * inputs)


def weights_of(rows: int = 24, columns: int = COLUMNS, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, columns)) * 0.05).astype(np.float32)


def grid(name: str) -> Grid:
    found = grid_of(name)
    assert found is not None
    return found


def rounded(name: str, effort: Effort, weights: np.ndarray, moment: Moment) -> tuple[np.ndarray, Rounded]:
    importance = np.ascontiguousarray(np.diagonal(moment.damped))
    plain = quantize_rows(grid(name).kind.number, weights, importance)
    return plain, round_rows(weights, plain, name, moment, effort)


def true_loss(name: str, weights: np.ndarray, stored: np.ndarray, x: np.ndarray) -> float:
    error = weights - dequantize_rows(grid(name).kind.number, stored)
    return float(np.square(x @ error.T, dtype=np.float64).sum())


def losses_of(name: str, weights: np.ndarray, stored: np.ndarray, moment: Moment) -> np.ndarray:
    error = (weights - dequantize_rows(grid(name).kind.number, stored)).astype(np.float64)
    return np.asarray(np.einsum("rc,cd,rd->r", error, moment.damped, error))


@pytest.mark.parametrize("name", TYPES)
def test_outputs_lose_less_in_every_type(name: str) -> None:
    x, moment = moment_of()
    weights = weights_of()
    plain, fast = rounded(name, "fast", weights, moment)
    best = rounded(name, "best", weights, moment)[1]
    losses = [true_loss(name, weights, stored, x) for stored in (plain, fast.stored, best.stored)]
    assert losses[1] < 0.25 * losses[0]
    assert losses[2] < losses[1]
    assert best.stored.shape == plain.shape


@pytest.mark.parametrize("name", ["Q3_K", "Q4_K", "IQ3_XXS", "Q5_1"])
def test_the_losses_told_are_those_of_the_bytes(name: str) -> None:
    _, moment = moment_of()
    weights = weights_of()
    found = rounded(name, "best", weights, moment)[1]
    assert np.allclose(losses_of(name, weights, found.stored, moment), found.after, rtol=1e-3)


def test_a_loss_that_is_larger_than_enough_may_be_told_in_part() -> None:
    _, moment = moment_of(1024, 2000)
    factor = moment.factor(1)
    errors = np.random.default_rng(1).standard_normal((1024, 5)).astype(np.float32)
    whole = factor.loss(errors)
    assert np.array_equal(factor.loss(errors, whole * [1, 0, 0, 0, 0]), whole)
    part = factor.loss(errors, whole * 0.3)
    assert (part > whole * 0.3).all()
    assert (part < whole).all()


def test_feedback_corrects_the_second_of_two_equal_columns() -> None:
    """With equal inputs only the sum of two weights counts: 0.5 and 0.5 become 0 and 1, not 0 and 0."""
    sums = np.eye(32, dtype=np.float32)
    sums[:2, :2] = [[4.0, 3.999], [3.999, 4.0]]
    weights = np.zeros((1, 32), np.float32)
    weights[0, :3] = 0.4, 0.4, -8
    q4_0 = grid("Q4_0")
    plain = quantize_rows(2, weights)
    assert dequantize_rows(2, plain)[0, :3].tolist() == [0, 0, -8]
    working = Working(q4_0, weights, plain)
    feed_back(working, Moment(10_000 * sums, 10_000).factor(1))
    assert dequantize_rows(2, working.pack())[0, :3].tolist() == [0, 1, -8]


def test_the_factor_gives_the_moments_back() -> None:
    _, moment = moment_of()
    for vector in (1, 4, 8):
        factor = moment.factor(vector)
        wide = np.zeros((COLUMNS, COLUMNS))
        for number, block in enumerate(factor.blocks):
            at = slice(number * vector, (number + 1) * vector)
            wide[at] = block @ factor.rows[at]
        ordered = moment.damped[np.ix_(factor.order, factor.order)]
        assert np.allclose(wide.T @ wide, ordered, rtol=1e-3, atol=1e-4 * ordered.max())
        assert sorted(factor.order) == list(range(COLUMNS))


def test_few_inputs_tell_less_of_columns_that_go_together() -> None:
    """The diagonal grows by 0.01 of its mean at least, and by 3 times columns / inputs."""
    one = np.array([[2, 1], [1, 4]], np.float32)
    for inputs, added in ((10_000, 0.03), (600, 0.03), (60, 0.3), (2, 9.0)):
        expected = [[2 + added, 1], [1, 4 + added]]
        assert np.allclose(Moment(inputs * one, inputs).damped, expected)


def test_columns_with_large_inputs_come_first() -> None:
    sums = np.diag(np.array([1, 9, 4, 2, 3, 8, 1, 1], np.float32))
    assert Moment(sums, 1).factor(1).order.tolist() == [1, 5, 2, 4, 3, 0, 6, 7]
    assert Moment(sums, 1).factor(4).order.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_the_factor_of_many_columns_is_that_of_the_whole_matrix() -> None:
    """The factorization goes by panels of 512 columns."""
    _, moment = moment_of(1100, 3000)
    backwards = moment.factor(1).order[::-1]
    lower = np.linalg.cholesky(moment.damped[np.ix_(backwards, backwards)].astype(np.float64))
    assert np.allclose(moment.factor(1).blocks[::-1, 0, 0], np.diagonal(lower), rtol=1e-5)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("seed", [2, 3])
def test_sweeps_never_raise_the_loss(name: str, seed: int) -> None:
    _, moment = moment_of(seed=seed)
    weights = weights_of(8, seed=seed + 1)
    plain = quantize_rows(grid(name).kind.number, weights, np.ones(COLUMNS, np.float32))
    working = Working(grid(name), weights, plain)

    def loss() -> np.ndarray:
        error = working.errors().astype(np.float64)
        return np.asarray(np.einsum("cr,cd,dr->r", error, moment.damped, error))

    losses = [loss()]
    for _ in range(2):
        for step in (fit_block, descend):
            for begin in range(0, COLUMNS, working.grid.kind.block):
                place = begin // working.grid.kind.block if step is fit_block else begin
                own = moment.damped[begin : begin + working.grid.kind.block]
                step(working, place, own[:, begin : begin + len(own)], own @ working.errors())
            losses.append(loss())
        sweep(working, moment.damped, working.errors())
        losses.append(loss())
    for before, after in pairwise(losses):
        assert (after <= before * (1 + 2e-6)).all()


def test_columns_of_different_blocks_correct_each_other() -> None:
    """The inputs of the last 384 columns are those of the first by half, so these take up the errors of the first."""
    random = np.random.default_rng(5)
    half = random.standard_normal((2000, 384)).astype(np.float32)
    x = np.concatenate([half, half / 2 + 0.01 * random.standard_normal(half.shape).astype(np.float32)], axis=1)
    moment = Moment(100 * x.T @ x, 100 * len(x))
    weights = weights_of(16, 768)
    for name in ("Q4_0", "IQ3_S", "IQ2_XS"):
        plain = quantize_rows(grid(name).kind.number, weights, np.ones(768, np.float32))
        found = round_rows(weights, plain, name, moment, "fast")
        assert found.after.sum() < 0.5 * losses_of(name, weights, plain, moment).sum()
        error = (weights - dequantize_rows(grid(name).kind.number, found.stored)).astype(np.float64)
        assert np.allclose(np.einsum("rc,cd,rd->r", error, moment.damped, error), found.after, rtol=1e-3)


def test_rows_on_the_grid_stay_as_they_are() -> None:
    _, moment = moment_of()
    plain = quantize_rows(8, weights_of())
    weights = dequantize_rows(8, plain)
    found = round_rows(weights, plain, "Q8_0", moment, "best")
    assert found.stored is plain
    assert (found.after < 1e-9).all()


def test_a_row_that_does_not_gain_keeps_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, moment = moment_of()
    weights = weights_of(4)

    def worse_in_row_2(working: Working, factor: Factor, watch: Watch) -> np.ndarray:
        loss = feed_back(working, factor, watch)
        working.levels[:, 2] = 0
        loss[2] = 1e9
        return loss

    monkeypatch.setattr("quant.round.rounding.feed_back", worse_in_row_2)
    plain, found = rounded("Q4_0", "fast", weights, moment)
    assert [np.array_equal(one, other) for one, other in zip(plain, found.stored, strict=True)] == [
        False,
        False,
        True,
        False,
    ]
    assert np.allclose(found.after, losses_of("Q4_0", weights, found.stored, moment), rtol=1e-3)


def test_rows_of_zeros_and_dead_columns_are_no_obstacle() -> None:
    x, _ = moment_of()
    x[:, 10:40] = 0
    moment = Moment(x.T @ x, len(x))
    weights = weights_of()
    weights[3] = 0
    weights[:, 64:128] = 0
    for name in TYPES:
        plain, found = rounded(name, "best", weights, moment)
        assert np.isfinite(dequantize_rows(grid(name).kind.number, found.stored)).all()
        before = losses_of(name, weights, plain, moment)
        assert (losses_of(name, weights, found.stored, moment) <= before * (1 + 1e-6)).all()


def test_inputs_that_were_all_zero_have_no_moments() -> None:
    with pytest.raises(ValueError, match="no inputs"):
        Moment(np.zeros((32, 32), np.float32), 5)


_PROBE = """
import hashlib
from runtime.llama.blas import one_blas_thread
from tests.quant.round.test_rounding import moment_of, rounded, weights_of
with one_blas_thread():
    moment = moment_of(768, 1000)[1]
    parts = [rounded(name, "best", weights_of(300, 768), moment)[1].stored for name in ("Q3_K", "IQ3_S")]
print(hashlib.sha256(b"".join(map(bytes, parts))).hexdigest())
"""


def test_the_number_of_threads_changes_no_byte() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _PROBE],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == hashlib.sha256().digest_size * 2
