"""Watching routers: literal sums with made-up graph nodes, then the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.measure.routers import FirstRouter, RouterCollector, open_router_reader, top_logits
from runtime.base.errors import EngineFailed, UsageError
from runtime.base.run import Run
from runtime.engine.backend import Batch
from runtime.llama.graph import packed
from tests.quant.nodes import FakeNode, weight

LOGITS = np.array([[1, 5, 2], [4, 3, -1]], np.float32)


def logits(values: Any = LOGITS, layer: int = 2) -> FakeNode:
    return FakeNode(f"ffn_moe_logits-{layer}", np.array(values, np.float32), "MUL_MAT")


def down(chosen: list[list[int]], out: Any, experts: int = 3) -> FakeNode:
    sources = (
        weight("blk.2.ffn_down_exps.weight", experts, 4, 1),
        FakeNode("x", np.zeros((1, 1, 1), np.float32)),
        FakeNode("ffn_moe_topk-2", np.array(chosen, np.int32)),
    )
    return FakeNode("ffn_moe_down-2", np.array(out, np.float32), "MUL_MAT_ID", sources)


def weights(values: Any, name: str = "ffn_moe_weights_norm-2") -> FakeNode:
    return FakeNode(name, np.array(values, np.float32))


def test_tcess_counts_the_best_expert_of_each_token() -> None:
    experts, values = top_logits(LOGITS)
    assert (experts.tolist(), values.tolist()) == ([1, 0], [5, 4])


def test_tcess_can_count_several() -> None:
    experts, values = top_logits(LOGITS, top=2)
    assert sorted(zip(experts.tolist(), values.tolist(), strict=True)) == [(0, 4), (1, 3), (1, 5), (2, 2)]


def test_tcess_can_leave_out_experts_that_are_unsure_among_the_best() -> None:
    # softmax of (5, 2) is (0.953, 0.047), of (4, 3) it is (0.731, 0.269)
    experts, values = top_logits(LOGITS, top=2, threshold=0.25)
    assert sorted(zip(experts.tolist(), values.tolist(), strict=True)) == [(0, 4), (1, 3), (1, 5)]


def test_more_experts_than_there_are_means_all() -> None:
    assert len(top_logits(LOGITS, top=9)[0]) == 6


@given(st.integers(1, 6), st.sampled_from([0, 0.13, 0.31, 0.57, 0.9]), st.randoms(use_true_random=False))
def test_the_settings_of_tcess_follow_the_formula(top: int, threshold: float, random: Any) -> None:
    rows = [[value / 8 for value in random.sample(range(-64, 64), 6)] for _ in range(4)]
    wanted = np.zeros(6)
    for row in np.array(rows, np.float32):
        best = np.argsort(-row)[:top]
        among = np.exp(row[best] - row.max()) / np.exp(row[best] - row.max()).sum()
        for expert, share in zip(best, among, strict=True):
            wanted[expert] += row[expert] if share >= threshold else 0
    experts, values = top_logits(np.array(rows, np.float32), top, threshold)
    assert np.bincount(experts, values, 6) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(("top", "threshold"), [(0, None), (1, 1.5), (1, -0.1), (1, float("nan"))])
def test_settings_that_make_no_sense_are_refused(top: int, threshold: float | None) -> None:
    with pytest.raises(UsageError, match="TCESS"):
        RouterCollector(top, threshold)


def test_what_is_chosen_given_and_put_out_is_added_up() -> None:
    collector = RouterCollector(top=2)
    for node in (
        logits(),
        FakeNode("ffn_moe_probs-2", np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]], np.float32)),
        weights([[[9], [9]], [[9], [9]]], "ffn_moe_weights-2"),
        weights([[0.75, 0.25], [0.5, 0.5]]),
        down([[1, 0], [0, 2]], [[[3, 4], [0, 2]], [[0, 1], [6, 8]]]),  # of lengths 5, 2, 1 and 10
    ):
        assert collector.wants(node)
        assert collector.sees(node)
    collector.finish_pass()
    routing = collector.routing()[2]
    assert routing.selected.tolist() == [2, 1, 1]
    assert routing.weight.tolist() == [0.75, 0.75, 0.5]
    assert routing.output.tolist() == [0.25 * 2 + 0.5 * 1, 0.75 * 5, 0.5 * 10]
    assert routing.probability.tolist() == [0.75, 0.75, 0.5]
    assert routing.top_logit.tolist() == [4, 8, 2]


def test_an_expert_that_no_token_was_sent_to_has_zeros() -> None:
    collector = RouterCollector()
    for node in (logits(), weights([[1], [1]]), down([[1], [0]], [[[1, 0]], [[1, 0]]])):
        collector.sees(node)
    collector.finish_pass()
    assert [float(values[2]) for _, values in collector.routing()[2].items()] == [0, 0, 0, 0, 0]


def test_a_batch_that_the_engine_cuts_in_two_counts_whole() -> None:
    collector = RouterCollector()
    for _ in range(2):
        for node in (logits(), weights([[1], [1]]), down([[1], [0]], [[[1, 0]], [[1, 0]]])):
            collector.sees(node)
    collector.finish_pass()
    routing = collector.routing()[2]
    assert (routing.selected.tolist(), routing.weight.tolist()) == ([2, 2, 0], [2, 2, 0])
    assert routing.top_logit.tolist() == [8, 10, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(value: float) -> None:
    with pytest.raises(EngineFailed, match="the router of layer 2 gives numbers that are not finite"):
        RouterCollector().sees(logits([[1, value, 2]]))


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        (down([[0]], [[[0]]]), True),
        (FakeNode("ffn_moe_up-2", np.zeros(1), "MUL_MAT_ID", (weight("blk.2.ffn_up_exps.weight", 1, 1),)), False),
        (FakeNode("Qcur-2", np.zeros(1), "MUL_MAT", (weight("blk.2.attn_q.weight", 1, 1),)), False),
        (logits(), True),
        (FakeNode("ffn_moe_probs-3 (reshaped)", np.zeros(1)), False),
        (FakeNode("result_norm", np.zeros(1)), True),
    ],
)
def test_only_the_routers_and_the_experts_outputs_are_watched(node: FakeNode, wanted: bool) -> None:
    assert RouterCollector().wants(node) is wanted


def test_after_the_layers_nothing_more_is_computed() -> None:
    assert RouterCollector().sees(FakeNode("result_norm", np.zeros(1))) is False


def test_from_the_second_pass_on_it_ends_with_the_last_experts() -> None:
    collector = RouterCollector()
    said = []
    for _ in range(2):
        said.append([collector.sees(node) for node in (logits(), weights([[1]]), down([[1]], [[[1, 0]]]))])
        collector.finish_pass()
    assert said == [[True, True, True], [True, True, False]]
    assert collector.routing()[2].selected.tolist() == [0, 2, 0]


def test_the_first_router_ends_the_pass() -> None:
    first = FirstRouter()
    assert [first.wants(node) for node in (logits(), FakeNode("ffn_moe_probs-1", np.zeros(1)))] == [True, False]
    assert first.sees(logits([[1, 2]])) is False
    assert first.sees(logits([[3, 4], [5, 6]])) is False
    assert first.logits().tolist() == [[1, 2], [3, 4], [5, 6]]


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 5))
def test_texts_are_packed_in_order_and_within_bounds(lengths: list[int], count: int) -> None:
    texts = [[number] * length for number, length in enumerate(lengths)]
    groups = list(packed(texts, 20, count))
    assert [text for group in groups for text in group] == texts
    assert all(len(group) <= count and (sum(map(len, group)) <= 20 or len(group) == 1) for group in groups)


def test_texts_read_together_route_as_each_alone(nano_path: Path) -> None:
    together, alone = RouterCollector(), RouterCollector()
    with open_router_reader(nano_path, 700, Run()) as reader:
        spoken = ["What is 17 + 25?", "Reverse the word stone.", "If it is Monday, what day was it two days ago?"]
        texts = [reader.model.tokenize(text, add_bos=True) for text in spoken]
        texts.insert(1, (texts[2] * 100)[:600])  # longer than a batch
        assert sum(reader.collect(texts, together)) == sum(map(len, texts))
        for text in texts:
            for _ in reader.collect([text], alone):
                pass
        first = reader.first_logits(texts[1])
    assert first.shape == (600, 16)
    assert sorted(together.routing()) == [1, 2, 3]
    for layer, found in together.routing().items():
        wanted = alone.routing()[layer]
        assert found.selected.sum() == 4 * sum(map(len, texts))
        # Another batch rounds otherwise, and a token on the edge may go to another expert.
        assert np.abs(found.selected - wanted.selected).sum() <= 0.02 * wanted.selected.sum()
        assert found.probability == pytest.approx(wanted.probability, rel=0.05, abs=0.5)
        assert found.output == pytest.approx(wanted.output, rel=0.1, abs=0.02 * float(wanted.output.sum()))


def test_the_first_router_says_what_it_says_in_a_whole_pass(nano_path: Path) -> None:
    collector = RouterCollector()
    with open_router_reader(nano_path, 64, Run()) as reader:
        tokens = reader.model.tokenize("Multiply 71 by 4.", add_bos=True)
        first = reader.first_logits(tokens)
        assert list(reader.collect([tokens], collector)) == [len(tokens)]
    assert np.bincount(first.argmax(axis=1), first.max(axis=1), 16) == pytest.approx(
        collector.routing()[1].top_logit, rel=1e-3
    )


def test_a_prefill_routes_as_decoding_does(nano_path: Path) -> None:
    prefill, decoding = RouterCollector(), RouterCollector()
    with open_router_reader(nano_path, 128, Run()) as reader:
        tokens = reader.model.tokenize("Compute 63 + 88. <think>\nO:3+8=11,carry1=>1\nT:6+8+1=15=>151", add_bos=True)
        for _ in reader.collect([tokens], prefill):
            pass
        reader.watcher = decoding
        reader.model.trim(0, 0)
        for position, token in enumerate(tokens):
            reader.model.decode(Batch([token], [position], [0], [0]))
            decoding.finish_pass()
    for layer, found in prefill.routing().items():
        wanted = decoding.routing()[layer]
        assert np.abs(found.selected - wanted.selected).sum() <= 0.05 * wanted.selected.sum()
        assert found.weight == pytest.approx(wanted.weight, rel=0.1, abs=0.03 * float(wanted.weight.sum()))
