"""Parts of a graph, with made-up nodes that an engine computes one by one."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from quant.measure.cut_check import Rows, WholePass
from quant.measure.graph_cuts import Graph
from quant.measure.partial_pass import GraphDiffers, PartialPass, PartNode, Reading
from quant.measure.routers import Node
from tests.quant.nodes import FakeNode, weight


def numbers(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


class Toy:
    """Three layers that double their input, behind an embedding. Computes nodes as the engine does."""

    def __init__(self, start: float = 1) -> None:
        self.value = start
        self.nodes = [FakeNode("embedding", numbers(0, 0), "GET_ROWS", (FakeNode("tokens", numbers(0)),))]
        for layer in range(3):
            matrix = weight(f"blk.{layer}.w", 2, 2)
            self.nodes.append(FakeNode(f"out-{layer}", numbers(0, 0), "MUL_MAT", (matrix, self.nodes[-1])))
        self.computed: list[str] = []

    def run(self, wants: Callable[[PartNode], bool], sees: Callable[[PartNode], bool]) -> None:
        self.computed = []
        for number, node in enumerate(self.nodes):
            node.left_out.clear()
            wanted = wants(node)
            if not (node.left_out and node.left_out[-1]):
                node.array[:] = 2 * self.nodes[number - 1].array if number else self.value
                self.computed.append(node.name)
            if wanted and not sees(node):
                return


def graph_of(toy: Toy) -> Graph:
    reading = Reading(lambda _: None)
    toy.run(reading.wants, reading.sees)
    assert toy.computed == []
    reading.restore()
    assert all(node.left_out == [True, False] for node in toy.nodes)
    return Graph(reading.steps)


def test_a_part_computes_from_what_an_earlier_one_kept() -> None:
    toy = Toy()
    graph = graph_of(toy)
    cut, kept = graph.best(0, 2), io.BytesIO()
    assert cut is not None
    assert cut.name == "out-0"
    first = PartialPass(graph, Rows(["blk.0.w"]), last=1, uses=1, end=cut, save=kept.write)
    toy.run(first.wants, first.sees)
    first.finish_pass()
    assert toy.computed == ["embedding", "out-0"]
    assert np.frombuffer(kept.getvalue(), np.float32).tolist() == [2, 2]
    toy.value = 1000  # the embedding is light, so it is computed again; nothing reads it
    kept.seek(0)
    rows = Rows(["blk.1.w", "blk.2.w"])
    second = PartialPass(graph, rows, last=3, uses=2, start=cut, load=kept.read)
    toy.run(second.wants, second.sees)
    second.finish_pass()
    assert toy.computed == ["embedding", "out-1"]  # of the last product the inputs are enough
    assert toy.nodes[-2].array.tolist() == [[4, 4]]
    assert toy.nodes[-1].left_out == [True, False]
    assert toy.nodes[1].left_out == [True, False]  # the engine may use the graph again


def test_a_part_goes_on_behind_its_last_matrix_to_the_next_cut() -> None:
    toy = Toy()
    graph = graph_of(toy)
    kept = io.BytesIO()
    part = PartialPass(graph, Rows(["blk.0.w"]), last=1, uses=1, end=graph.cut(2), save=kept.write)
    toy.run(part.wants, part.sees)
    assert toy.computed == ["embedding", "out-0", "out-1"]
    assert np.frombuffer(kept.getvalue(), np.float32).tolist() == [4, 4]


def test_a_batch_that_the_engine_cuts_in_two_is_two_passes() -> None:
    toy = Toy()
    graph = graph_of(toy)
    kept = io.BytesIO()
    part = PartialPass(graph, Rows(["blk.0.w"]), last=1, uses=1, end=graph.cut(1), save=kept.write)
    toy.run(part.wants, part.sees)
    toy.value = 5
    toy.run(part.wants, part.sees)
    part.finish_pass()
    assert np.frombuffer(kept.getvalue(), np.float32).tolist() == [2, 2, 10, 10]


def test_a_text_whose_graph_lacks_the_cut_is_noticed() -> None:
    toy = Toy()
    graph = graph_of(toy)
    cut = graph.cut(2)
    toy.nodes[2] = replace(toy.nodes[2], name="another")
    part = PartialPass(graph, Rows(["blk.2.w"]), last=3, uses=1, start=cut, load=bytes)
    toy.run(part.wants, part.sees)
    with pytest.raises(GraphDiffers, match="changes with the text"):
        part.finish_pass()
    part = PartialPass(graph, Rows(["blk.0.w"]), last=1, uses=1, end=cut)
    toy.run(part.wants, part.sees)
    with pytest.raises(GraphDiffers, match="changes with the text"):
        part.finish_pass()


def test_the_check_compares_the_inputs_of_all_matrices() -> None:
    toy = Toy()
    graph = graph_of(toy)
    cut = graph.cut(1)
    whole = WholePass(["blk.0.w", "blk.1.w", "blk.2.w"], [cut])
    toy.run(whole.wants, whole.sees)
    kept = whole.content(cut).read()
    assert np.frombuffer(kept, np.float32).tolist() == [2, 2]
    for content, same in ((kept, True), (np.float32([2, 2.1]).tobytes(), False)):
        rows = Rows(["blk.1.w", "blk.2.w"])
        part = PartialPass(graph, rows, last=3, uses=2, start=cut, load=io.BytesIO(content).read)
        toy.run(part.wants, part.sees)
        assert rows.like(whole.rows) is same


def test_a_matrix_that_is_used_twice_is_waited_for_twice() -> None:
    toy = Toy()
    toy.nodes[3] = replace(toy.nodes[3], sources=(toy.nodes[1].sources[0], toy.nodes[2]))
    seen: list[str] = []

    class Seen(Rows):
        def sees(self, node: Node) -> None:
            seen.append(node.name)

    part = PartialPass(graph_of(toy), Seen(["blk.0.w", "blk.1.w"]), last=3, uses=3)
    toy.run(part.wants, part.sees)
    assert seen == ["out-0", "out-1", "out-2"]
