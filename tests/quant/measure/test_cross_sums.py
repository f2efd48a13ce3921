"""Sums over the inputs of two streams: literal ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from quant.measure.cross_sums import CrossSums, Seen, SeenInputs
from quant.measure.moment_sums import Input
from quant.round.cross import Inputs
from quant.round.watch import unwatched
from runtime.base.errors import Aborted, EngineFailed
from tests.quant.nodes import FakeNode, weight

NAME = "blk.0.w"


def seen(rows: list[list[float]]) -> Seen:
    return Seen(np.array([[rows]], np.float32), None)


def routed(rows: list[list[list[float]]], chosen: list[list[int]]) -> Seen:
    return Seen(np.array([rows], np.float32), np.array(chosen, np.int32))


def test_the_differences_of_a_dense_matrix_are_summed() -> None:
    sums = CrossSums(Input(2, 1, 0, [NAME]), (1, 1))
    sums.add([seen([[1, 2], [3, 4]])], [seen([[1, 1], [2, 4]])], None)
    found = sums.finished().inputs(0, unwatched)
    assert found is not None and found.differences is not None
    # Of two inputs y: (1, 1), (2, 4); x - y are (0, 1), (1, 0).
    assert (2 * found.differences).tolist() == [[2, 4], [1, 1]]
    damping = found.moment.damped - np.array([[5, 9], [9, 17]], np.float32) / 2
    assert damping[0, 1] == 0
    assert damping[0, 0] == damping[1, 1] > 0


def test_inputs_of_the_original_have_no_differences() -> None:
    sums = CrossSums(Input(2, 1, 0, [NAME]), (1, 1))
    sums.add([seen([[1, 2]])], [seen([[1, 2]])], None)
    found = sums.finished().inputs(0, unwatched)
    assert found is not None and found.differences is None


def test_a_token_pairs_within_an_expert_only() -> None:
    sums = CrossSums(Input(1, 3, 0, [NAME]), (3, 1))
    original = routed([[[10], [20]], [[30], [40]]], [[0, 1], [0, 2]])  # the inputs of two tokens, by place
    rounded = routed([[[1], [2]], [[3], [4]]], [[1, 0], [0, 1]])
    sums.add([original], [rounded], None)
    first, second, third = (sums.finished().inputs(number, unwatched) for number in range(3))
    assert first is not None and first.differences is not None
    assert first.differences.tolist() == [[(8 * 2 + 27 * 3) / 2]]
    assert second is not None and second.differences is not None
    # The second token takes expert 1 in the file alone: it counts as an input, and not as a difference.
    assert second.differences.tolist() == [[19 / 2]]
    assert third is None


def test_experts_that_share_their_input_always_pair() -> None:
    sums = CrossSums(Input(1, 2, 0, [NAME]), (2, 1))
    sums.add([routed([[[5]], [[7]]], [[0], [0]])], [routed([[[4]], [[6]]], [[0], [1]])], None)
    found = [sums.finished().inputs(number, unwatched) for number in range(2)]
    assert [each.differences.tolist() for each in found if each and each.differences is not None] == [[[4]], [[6]]]


def test_the_number_of_threads_changes_no_bit() -> None:
    rng = np.random.default_rng(2)
    x, y = (Seen(rng.normal(size=(1, 1, 70, 1600)).astype(np.float32), None) for _ in range(2))
    found: list[Inputs] = []
    with ThreadPoolExecutor(3) as pool:
        for threads in (None, pool):
            sums = CrossSums(Input(1600, 1, 0, [NAME]), (1, 1))
            sums.add([x, y], [y, x], threads)
            inputs = sums.finished().inputs(0, unwatched)
            assert inputs is not None
            found.append(inputs)
    one, other = found
    assert one.differences is not None and other.differences is not None
    assert np.array_equal(one.differences, other.differences)
    assert np.array_equal(one.moment.damped, other.moment.damped)


def test_inputs_that_are_not_finite_are_refused() -> None:
    sums = CrossSums(Input(1, 1, 0, [NAME]), (1, 1))
    sums.add([seen([[np.inf]])], [seen([[np.inf]])], None)
    with pytest.raises(EngineFailed, match=r"the input of blk\.0\.w is not finite"):
        sums.finished()


@pytest.mark.parametrize("count", [0, 1])
def test_sums_end_after_one_product_when_a_stop_is_wanted(count: int) -> None:
    rng = np.random.default_rng(2)
    x, y = (Seen(rng.normal(size=(1, 1, 70, 1600)).astype(np.float32), None) for _ in range(2))
    looks: list[float] = []

    def watch(share: float) -> None:
        looks.append(share)
        raise Aborted

    sums = CrossSums(Input(1600, 1, 0, [NAME]), (1, 1))
    with ThreadPoolExecutor(1) as pool, pytest.raises(Aborted):
        sums.add([x], [y], pool if count else None, watch)
    assert len(looks) == 1


def test_the_inputs_of_a_matrix_are_taken_from_its_products() -> None:
    kept = SeenInputs([Input(2, 1, 0, [NAME, "blk.0.v"])])
    x = FakeNode("x", np.array([[[[1, 2]]]], np.float32))
    for name in (NAME, "blk.0.v", NAME):
        node = FakeNode("out", np.zeros((1, 1), np.float32), "MUL_MAT", (weight(name, 3, 2), x))
        assert kept.wants(node) is (name == NAME)
        if name == NAME:
            kept.sees(node)
    x.array[:] = 0
    assert [each.rows.tolist() for each in kept.of(NAME)] == 2 * [[[[[1, 2]]]]]
