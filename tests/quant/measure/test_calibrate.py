"""Collecting: literal sums with made-up graph nodes, then the embedded model against what llama-imatrix found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.measure import texts
from quant.measure.calibrate import Collector, _sums_per_expert, collect
from quant.measure.chunks import ChunkOptions, Text, chunks
from quant.measure.texts import CALIBRATION
from runtime.base.errors import Aborted, EngineFailed, UsageError
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card
from tests.quant.nodes import FakeNode, weight

REFERENCE = Path(__file__).parents[1] / "imatrix_reference.json"
PROBLEMS = Path(texts.__file__).parent / "calibration" / "problems.txt"


def rows(*values: list[float]) -> FakeNode:
    return FakeNode("x", np.array(values, np.float32))


def product(weight: FakeNode, x: FakeNode, name: str = "out") -> FakeNode:
    return FakeNode(name, np.zeros((1, 1), np.float32), "MUL_MAT", (weight, x))


def see(collector: Collector, *nodes: FakeNode) -> None:
    for node in nodes:
        collector.sees(node)
    collector.finish_pass()


def sixteen(value: float = 1.0) -> FakeNode:
    return FakeNode("x", np.full((16, 2), value, np.float32))


def test_squares_are_summed_per_column() -> None:
    collector = Collector()
    see(collector, product(weight("blk.0.attn_q.weight", 3, 2), rows([1, 2], [3, 4])))
    see(collector, product(weight("blk.0.attn_q.weight", 3, 2), rows([1, 1])))
    entry = collector.entries()["blk.0.attn_q.weight"]
    assert entry.sums.tolist() == [[11, 21]]
    assert entry.counts.tolist() == [3]


def test_weights_with_the_same_input_get_the_same_sums_each() -> None:
    collector, x = Collector(), rows([1, 2], [3, 4])
    see(collector, product(weight("blk.0.attn_q.weight", 3, 2), x), product(weight("blk.0.attn_k.weight", 5, 2), x))
    see(collector, product(weight("blk.0.attn_q.weight", 3, 2), rows([1, 0])))
    assert collector.entries()["blk.0.attn_q.weight"].sums.tolist() == [[11, 20]]
    assert collector.entries()["blk.0.attn_k.weight"].sums.tolist() == [[10, 20]]


def test_a_tensor_of_another_pass_at_the_same_address_is_another_tensor() -> None:
    collector = Collector()
    for value in (1.0, 2.0):
        x = FakeNode("x", np.array([[value]], np.float32), identity=77)
        see(collector, product(weight("blk.0.attn_q.weight", 1, 1), x))
    assert collector.entries()["blk.0.attn_q.weight"].sums.tolist() == [[5]]


def test_a_weight_per_head_has_sums_per_head() -> None:
    collector = Collector()
    x = FakeNode("x", np.array([[[1, 2]], [[3, 4]]], np.float32))  # two heads, one row each
    see(collector, product(weight("blk.0.attn_k_b.weight", 2, 5, 2), x))
    entry = collector.entries()["blk.0.attn_k_b.weight"]
    assert entry.sums.tolist() == [[1, 4], [9, 16]]
    assert entry.counts.tolist() == [1]


def test_inputs_with_more_axes_than_the_weight_are_added_up() -> None:
    collector = Collector()
    x = FakeNode("x", np.array([[[1, 2]], [[3, 4]]], np.float32))
    see(collector, product(weight("blk.0.attn_q.weight", 5, 2), x))
    entry = collector.entries()["blk.0.attn_q.weight"]
    assert (entry.sums.tolist(), entry.counts.tolist()) == ([[10, 20]], [2])


def routed(name: str, experts: int, x: NDArray[np.float32], ids: list[list[int]], out: Any = None) -> FakeNode:
    columns = x.shape[-1]
    chosen = FakeNode("ffn_moe_topk-2", np.array(ids, np.int32))
    result = np.zeros((len(ids), len(ids[0]), 1), np.float32) if out is None else np.array(out, np.float32)
    sources = (weight(name, experts, 4, columns), FakeNode("x", x), chosen)
    return FakeNode("ffn_moe_down-2", result, "MUL_MAT_ID", sources)


def test_each_expert_gets_the_rows_of_its_tokens() -> None:
    collector = Collector()
    x = np.array([[[1, 2]], [[3, 4]]], np.float32)  # two tokens, one row for all their experts
    see(collector, routed("blk.2.ffn_up_exps.weight", 4, x, [[0, 2], [2, 3]]))
    entry = collector.entries()["blk.2.ffn_up_exps.weight"]
    assert entry.sums.tolist() == [[1, 4], [0, 0], [10, 20], [9, 16]]
    assert entry.counts.tolist() == [1, 0, 2, 1]


def test_each_expert_gets_its_own_row_where_each_has_one() -> None:
    collector = Collector()
    x = np.array([[[1], [2]], [[3], [4]]], np.float32)
    see(collector, routed("blk.2.ffn_down_exps.weight", 3, x, [[0, 2], [2, 0]]))
    entry = collector.entries()["blk.2.ffn_down_exps.weight"]
    assert entry.sums.tolist() == [[17], [0], [13]]


@given(st.integers(1, 6), st.integers(1, 4), st.booleans(), st.randoms(use_true_random=False))
def test_sums_per_expert_are_those_of_the_plain_loop(tokens: int, used: int, shared: bool, random: Any) -> None:
    experts, columns = 5, 3
    ids = np.array([random.sample(range(experts), used) for _ in range(tokens)], np.int32)
    width = 1 if shared else used
    x = np.array([random.randint(-9, 9) for _ in range(tokens * width * columns)], np.float32)
    x = x.reshape(tokens, width, columns)
    wanted, counted = np.zeros((experts, columns)), np.zeros(experts)
    for token in range(tokens):
        for place in range(used):
            wanted[ids[token, place]] += x[token, place % width] ** 2
            counted[ids[token, place]] += 1
    sums, counts = _sums_per_expert(x, ids, experts)
    assert sums.tolist() == wanted.tolist()
    assert counts.tolist() == counted.tolist()


def test_the_router_is_watched() -> None:
    collector = Collector()
    logits = FakeNode("ffn_moe_logits-2", np.array([[1, 5, 2], [4, 3, -1]], np.float32), "ADD")
    probs = FakeNode("ffn_moe_probs-2", np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]], np.float32))
    raw = FakeNode("ffn_moe_weights-2", np.array([[[9], [9]], [[9], [9]]], np.float32))
    weights = FakeNode("ffn_moe_weights_norm-2", np.array([[0.75, 0.25], [0.5, 0.5]], np.float32))
    x = np.array([[[1], [1]], [[1], [1]]], np.float32)
    out = [[[3, 4], [0, 2]], [[0, 1], [6, 8]]]  # of lengths 5, 2, 1 and 10
    down = routed("blk.2.ffn_down_exps.weight", 3, x, [[1, 0], [0, 2]], out)
    see(collector, logits, probs, raw, weights, down)
    routing = collector.routing()[2]
    assert routing.selected.tolist() == [2, 1, 1]
    assert routing.weight.tolist() == [0.75, 0.75, 0.5]
    assert routing.output.tolist() == [0.25 * 2 + 0.5 * 1, 0.75 * 5, 0.5 * 10]
    assert routing.probability.tolist() == [0.75, 0.75, 0.5]
    assert routing.top_logit.tolist() == [4, 5, 0]


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        (product(weight("blk.0.attn_q.weight", 3, 2), sixteen()), True),
        (product(weight("output.weight", 3, 2), sixteen()), False),
        (product(weight("cache_k_l0 (view)", 3, 2), sixteen()), False),
        (product(weight("blk.0.attn_q.weight", 3, 2), rows([1, 2])), False),
        (product(weight("blk.0.attn_q.weight", 3, 2), FakeNode("x", np.zeros((16, 2), np.float16))), False),
        (FakeNode("ffn_moe_probs-3", np.zeros((1, 1))), True),
        (FakeNode("ffn_moe_probs-3 (reshaped)", np.zeros((1, 1))), False),
        (FakeNode("ffn_moe_weights_sum-3", np.zeros((1, 1))), False),
        (FakeNode("result_norm", np.zeros((1, 1))), True),
        (FakeNode("ffn_norm-3", np.zeros((1, 1)), "MUL"), False),
    ],
)
def test_only_what_is_needed_is_asked_for(node: FakeNode, wanted: bool) -> None:
    assert Collector().wants(node) is wanted


def test_nothing_is_asked_for_while_not_watching() -> None:
    collector = Collector()
    collector.watching = False
    assert not collector.wants(product(weight("blk.0.attn_q.weight", 3, 2), sixteen()))


def test_after_the_layers_nothing_more_is_computed() -> None:
    assert Collector().sees(product(weight("blk.0.attn_q.weight", 3, 2), rows([1, 2]))) is True
    assert Collector().sees(FakeNode("result_norm", np.zeros((1, 1)))) is False


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers_are_an_error(value: float) -> None:
    with pytest.raises(EngineFailed, match=r"the input of blk\.0\.attn_q\.weight is not finite"):
        Collector().sees(product(weight("blk.0.attn_q.weight", 3, 2), rows([1, value])))


class Letters:
    """One token for each character; 0 begins a text where `first_token` says so."""

    def __init__(self, first_token: int | None = None) -> None:
        self.first_token = first_token

    def tokenize(self, text: str, *, add_bos: bool = False) -> list[int]:
        return [0] * (add_bos and self.first_token is not None) + [ord(letter) for letter in text]


def test_texts_are_cut_into_whole_chunks() -> None:
    texts = [Text("a", "a" * 20), Text("b", "b" * 20)]
    assert chunks(Letters(), texts, ChunkOptions(16)) == ((97,) * 16, (97,) * 4 + (98,) * 12)


def test_the_first_token_takes_the_place_of_each_chunks_first() -> None:
    texts = [Text("a", "a" * 31)]
    assert chunks(Letters(0), texts, ChunkOptions(16)) == ((0,) + (97,) * 15,) * 2


def test_no_more_chunks_than_asked_for() -> None:
    assert len(chunks(Letters(), [Text("a", "a" * 100)], ChunkOptions(16, 2))) == 2


@pytest.mark.parametrize(
    ("size", "most", "problem"),
    [(512, None, "the text has 40 tokens, and one chunk has 512"), (15, None, "at least 16"), (16, 0, "at least 1")],
)
def test_chunks_that_make_no_sense_are_refused(size: int, most: int | None, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        chunks(Letters(), [Text("a", "a" * 40)], ChunkOptions(size, most))


def test_the_embedded_model_agrees_with_llama_imatrix(nano_path: Path) -> None:
    """tests/peers/imatrix.py --write made the reference with llama-imatrix, from a text of this repository."""
    reference = json.loads(REFERENCE.read_text())
    text = Text("problems.txt", PROBLEMS.read_text(encoding="utf-8").removesuffix("\n"))
    events: list[Event] = []
    size, most = reference["context"], reference["chunks"]
    matrix = collect(nano_path, [text], ChunkOptions(context=size, limit=most), Run(listen=events.append, threads=1))
    assert (matrix.chunk_count, matrix.chunk_size, matrix.datasets) == (most, size, ("problems.txt",))
    assert set(matrix.entries) == set(reference["entries"])
    for name, (total, counts) in reference["entries"].items():
        entry = matrix.entries[name]
        # Other processors round otherwise: a token on the edge may go to another expert.
        assert float(entry.sums.sum(dtype=np.float64)) == pytest.approx(total, rel=0.02), name
        assert entry.counts.sum() == sum(counts), name
        assert np.abs(entry.counts - counts).sum() <= 0.02 * sum(counts), name
    assert [(e.done, e.total) for e in events if isinstance(e, Progress) and e.job == "collecting"] == [
        (size * (n + 1), size * most) for n in range(most)
    ]


def test_the_router_statistics_of_the_embedded_model_add_up(nano_path: Path) -> None:
    card = read_card(nano_path)
    matrix = collect(nano_path, [CALIBRATION.for_model(card)], ChunkOptions(context=128, limit=2), Run(threads=1))
    assert sorted(matrix.routing) == [1, 2, 3]
    assert matrix.routed_tokens == 256
    for layer, routing in matrix.routing.items():
        assert routing.selected.tolist() == matrix.entries[f"blk.{layer}.ffn_down_exps.weight"].counts.tolist()
        assert routing.selected.sum() == 256 * card.experts_used
        # The weights of a token are normalised, then scaled: the same sum for every token, but for those where all are
        # so small that the engine does not divide by their sum.
        scale = card.metadata["deepseek2.expert_weights_scale"]
        assert isinstance(scale, float)
        assert 0.8 * 256 * scale < routing.weight.sum() < 1.001 * 256 * scale
        assert (routing.output[routing.selected > 0] > 0).all()
        assert 0 < routing.probability.sum() <= 256 * card.experts


def test_a_long_chunk_takes_several_passes(nano_path: Path) -> None:
    text = Text("problems.txt", PROBLEMS.read_text(encoding="utf-8"))
    matrix = collect(nano_path, [text], ChunkOptions(context=1024, limit=1), Run(threads=1))
    assert matrix.entries["blk.0.ffn_down.weight"].counts.tolist() == [1024]
    assert matrix.routing[1].selected.sum() == 4096


def test_collecting_can_be_stopped(nano_path: Path) -> None:
    stop = Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.job == "collecting":
            stop.set()

    with pytest.raises(Aborted):
        collect(nano_path, [Text("a", PROBLEMS.read_text())], ChunkOptions(context=64), Run(stop, listen, threads=1))
