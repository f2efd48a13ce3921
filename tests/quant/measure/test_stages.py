"""Which matrices are rounded together: literal graphs of a few nodes."""

from __future__ import annotations

from quant.measure.graph_cuts import Graph
from quant.measure.moment_sums import Input
from quant.measure.stages import divided, passes_of, stages_of, work_of
from tests.quant.measure.test_graph_cuts import TOKENS, WEIGHT, Steps


class Layers(Steps):
    """Also keeps which matrix each product has."""

    def __init__(self) -> None:
        super().__init__()
        self.products: dict[int, str] = {}
        self.inputs: list[Input] = []

    def product(self, matrices: list[str], x: int) -> list[int]:
        """Products of matrices with one input."""
        outs = [self.add(f"{name}-out", [WEIGHT, x], "MUL_MAT") for name in matrices]
        self.products |= dict(zip(outs, matrices, strict=True))
        self.inputs.append(Input(4, 1, outs[0], matrices))
        return outs


def dense(count: int) -> Layers:
    graph = Layers()
    x = graph.add("embedding", [TOKENS], "GET_ROWS")
    for layer in range(count):
        attended = graph.add(f"attention-{layer}", graph.product([f"q{layer}", f"k{layer}"], x))
        (out,) = graph.product([f"o{layer}"], attended)
        middle = graph.add(f"middle-{layer}", [out, x])
        both = graph.add(f"glu-{layer}", graph.product([f"gate{layer}", f"up{layer}"], middle))
        (down,) = graph.product([f"down{layer}"], both)
        x = graph.add(f"out-{layer}", [down, middle])
    return graph


def names(stages: list[tuple[Input, ...]]) -> list[list[str]]:
    return [sorted(name for each in stage for name in each.weights) for stage in stages]


def test_a_dense_layer_has_four_stages() -> None:
    found = dense(2)
    stages = divided(found.inputs, found.products, Graph(found.steps))
    assert names(stages) == [
        ["k0", "q0"], ["o0"], ["gate0", "up0"], ["down0"],
        ["k1", "q1"], ["o1"], ["gate1", "up1"], ["down1"],
    ]  # fmt: skip


def test_attention_beside_a_feed_forward_shares_its_stages() -> None:
    graph = Layers()
    x = graph.add("embedding", [TOKENS], "GET_ROWS")
    attended = graph.add("attention", graph.product(["q"], x))
    graph.product(["o"], attended)
    (up,) = graph.product(["up"], x)
    graph.product(["down"], up)
    assert names(divided(graph.inputs, graph.products, Graph(graph.steps))) == [["q", "up"], ["down", "o"]]


def test_a_matrix_that_is_not_rounded_divides_nothing() -> None:
    graph = Layers()
    x = graph.add("embedding", [TOKENS], "GET_ROWS")
    (chosen,) = graph.product(["router"], x)
    experts = graph.add("experts-out", [WEIGHT, x, chosen], "MUL_MAT_ID")
    graph.products[experts] = "experts"
    inputs = [Input(4, 2, experts, ["experts"]), graph.inputs[0]]
    shared = graph.product(["shared"], x)
    rounded = {number: name for number, name in graph.products.items() if name != "router"}
    found = divided([inputs[0], graph.inputs[-1]], rounded, Graph(graph.steps))
    assert names(found) == [["experts", "shared"]]
    assert shared


def test_each_stage_is_reached_from_the_start_of_the_one_before() -> None:
    found = dense(2)
    graph = Graph(found.steps)
    stages = list(stages_of(found.inputs, found.products, graph))
    assert [stage.start.name if stage.start else "" for stage in stages] == [
        "", "attention-0", "o0-out", "o0-out", "out-0", "out-0", "middle-1", "middle-1",
    ]  # fmt: skip
    assert (stages[2].first, stages[2].last) == (6, 6)
    # Of 12 products, 1,000 each: the file's stream computes 15, the original one 11.
    assert work_of(stages, graph) == 26_000


def test_passes_are_counted_for_both_streams() -> None:
    found = dense(2)
    stages = list(stages_of(found.inputs, found.products, Graph(found.steps)))
    assert passes_of(stages, [True] * 8) == 16
    # The file's stream goes on to four cuts, then both collect; the original one comes in one pass.
    assert passes_of(stages, [False] * 6 + [True] * 2) == 3 + 1 + 4
    assert passes_of(stages, [True, *[False] * 7]) == 2
