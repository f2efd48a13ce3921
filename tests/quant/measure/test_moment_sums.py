"""Sums of x x^T: literal ones, with made-up nodes of a graph."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.measure.moment_sums import Input, InputFinder, MomentCollector, Share, add_products, missing, turns
from quant.round.moments import Part
from runtime.base.errors import EngineFailed
from tests.quant.nodes import FakeNode, weight


def product(matrix: FakeNode, x: FakeNode) -> FakeNode:
    return FakeNode("out", np.zeros((1, 1), np.float32), "MUL_MAT", (matrix, x))


def routed(matrix: FakeNode, x: FakeNode, chosen: FakeNode) -> FakeNode:
    return FakeNode("out", np.zeros((1, 1), np.float32), "MUL_MAT_ID", (matrix, x, chosen))


def share(name: str, columns: int, slices: int = 1, first: int = 0, end: int | None = None) -> Share:
    return Share(Input(columns, slices, 0, [name]), first, slices if end is None else end)


def test_matrices_with_one_input_are_found_together() -> None:
    finder = InputFinder()
    x, y = FakeNode("x", np.zeros((2, 4), np.float32)), FakeNode("y", np.zeros((2, 3), np.float32))
    for node in (
        product(weight("blk.0.attn_q.weight", 5, 4), x),
        product(weight("blk.0.attn_k.weight", 2, 4), x),
        product(weight("blk.0.ffn_down.weight", 4, 3), y),
        product(weight("blk.0.attn_q.weight", 5, 4), y),  # a matrix that is used twice has one moment
        product(weight("output.weight", 9, 4), FakeNode("z", np.zeros((2, 4), np.float32))),
        product(weight("token_embd.weight", 9, 4), x),
        product(FakeNode("kq", np.zeros((2, 4), np.float32)), x),
    ):
        assert not finder.wants(node)
    assert [(each.columns, each.slices, each.weights) for each in finder.inputs] == [
        (4, 1, ["blk.0.attn_q.weight", "blk.0.attn_k.weight"]),
        (3, 1, ["blk.0.ffn_down.weight"]),
        (4, 1, ["output.weight"]),
    ]
    assert [(each.uses, each.node, each.last) for each in finder.inputs] == [(2, 0, 3), (1, 2, 2), (1, 4, 4)]


def test_the_moments_of_a_dense_matrix_are_summed() -> None:
    collector = MomentCollector([share("blk.0.attn_q.weight", 2)])
    node = product(weight("blk.0.attn_q.weight", 3, 2), FakeNode("x", np.array([[1, 2], [3, 4]], np.float32)))
    assert collector.wants(node)
    collector.sees(node)
    collector.sees(node)
    (part, sums), *rest = collector.parts()
    assert not rest
    assert sums.tolist() == [[[20, 28], [28, 40]]]
    assert part.counts == (4,)
    assert part.weights == ("blk.0.attn_q.weight",)


def test_each_expert_has_the_moments_of_its_tokens() -> None:
    matrix = weight("blk.0.ffn_up_exps.weight", 3, 5, 2)
    one_row_each = FakeNode("x", np.array([[[1, 2]], [[3, 4]]], np.float32))
    chosen = FakeNode("ids", np.array([[0, 2], [2, 0]], np.int32))
    collector = MomentCollector([share(matrix.name, 2, 3)])
    collector.sees(routed(matrix, one_row_each, chosen))
    ((part, sums),) = collector.parts()
    assert part.counts == (2, 0, 2)
    assert sums.tolist() == [[[10, 14], [14, 20]], [[0, 0], [0, 0]], [[10, 14], [14, 20]]]
    own_rows = FakeNode("x", np.array([[[1, 0], [0, 2]], [[3, 0], [0, 4]]], np.float32))
    collector = MomentCollector([share(matrix.name, 2, 3, 2, 3)])
    collector.sees(routed(matrix, own_rows, chosen))
    ((part, sums),) = collector.parts()
    assert (part.first, part.counts, sums.tolist()) == (2, (2,), [[[9, 0], [0, 4]]])


def test_each_head_has_the_moments_of_its_rows() -> None:
    x = FakeNode("x", np.array([[[1, 2]], [[3, 4]]], np.float32))
    matrix = weight("blk.0.attn_k_b.weight", 2, 5, 2)
    collector = MomentCollector([share(matrix.name, 2, 2)])
    collector.sees(product(matrix, x))
    ((part, sums),) = collector.parts()
    assert part.counts == (1, 1)
    assert sums.tolist() == [[[1, 2], [2, 4]], [[9, 12], [12, 16]]]


def test_inputs_that_are_not_finite_are_refused() -> None:
    collector = MomentCollector([share("blk.0.attn_q.weight", 2)])
    x = FakeNode("x", np.array([[np.inf, 1]], np.float32))
    collector.sees(product(weight("blk.0.attn_q.weight", 3, 2), x))
    with pytest.raises(EngineFailed, match=r"blk\.0\.attn_q\.weight is not finite"):
        list(collector.parts())


def test_layers_are_collected_in_turns_within_the_memory() -> None:
    dense = [share(str(number), 10) for number in range(3)]  # 400 bytes each
    assert [[each.weight for each in group] for group in turns(dense, 800)] == [["0", "1"], ["2"]]
    experts = [share("q", 10), share("gate", 10, 5)]
    found = [[(each.weight, each.first, each.end) for each in group] for group in turns(experts, 800)]
    assert found == [[("q", 0, 1), ("gate", 0, 1)], [("gate", 1, 3)], [("gate", 3, 5)]]
    assert [len(group) for group in turns(dense, 1)] == [1, 1, 1]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 9)), min_size=1, max_size=8),
    st.integers(1, 5000),
)
def test_each_slice_has_its_turn_once(shapes: list[tuple[int, int]], memory: int) -> None:
    groups = list(turns([share(str(number), *shape) for number, shape in enumerate(shapes)], memory))
    seen = [(each.weight, place) for group in groups for each in group for place in range(each.first, each.end)]
    assert seen == [(str(number), each) for number, (_, slices) in enumerate(shapes) for each in range(slices)]
    for group in groups:
        size = sum(each.bytes for each in group)
        assert size <= memory or (len(group) == 1 and group[0].end - group[0].first == 1)


def test_only_slices_without_moments_are_collected() -> None:
    inputs = [Input(2, 1, 0, ["q"]), Input(2, 6, 1, ["gate", "up"]), Input(2, 2, 2, ["down"])]
    parts = [
        Part("a", ("q",), 2, 0, (1,)),
        Part("b", ("gate", "up"), 2, 1, (1, 1)),
        Part("c", ("gate", "up"), 2, 4, (0,)),
    ]
    found = [(each.weight, each.first, each.end) for each in missing(inputs, parts)]
    assert found == [("gate", 0, 1), ("gate", 3, 4), ("gate", 5, 6), ("down", 0, 2)]


def test_products_in_blocks_are_the_same_with_any_number_of_threads() -> None:
    rows = np.random.default_rng(1).standard_normal((40, 1700), np.float32)
    alone, shared = np.zeros((1700, 1700), np.float32), np.zeros((1700, 1700), np.float32)
    add_products([(alone, rows)], None)
    with ThreadPoolExecutor(3) as threads:
        add_products([(shared, rows)], threads)
    assert np.array_equal(alone, shared)
    upper = np.triu_indices(1700)
    assert np.allclose(alone[upper], (rows.T @ rows)[upper], rtol=1e-4, atol=1e-4)


def test_moments_of_many_columns_are_symmetric() -> None:
    x = np.random.default_rng(2).standard_normal((3, 900), np.float32)
    collector = MomentCollector([share("blk.0.attn_q.weight", 900)])
    collector.sees(product(weight("blk.0.attn_q.weight", 1, 900), FakeNode("x", x)))
    ((_, sums),) = collector.parts()
    assert np.array_equal(sums[0], sums[0].T)
    assert np.allclose(sums[0], x.T @ x, atol=1e-4)
