"""A model whose matrices lie in the mapped file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.base.errors import EngineFailed
from runtime.llama import GraphNode, MappedObserver, Observer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is reserved in this way on Linux")


def hidden_states(opened: type[Observer], path: Path) -> list[bytes]:
    found: list[bytes] = []

    def sees(node: GraphNode) -> bool:
        found.append(node.content())
        return True

    with opened(path, lambda node: node.name.startswith("l_out-"), sees, window=64) as model:
        for _ in range(2):
            for _ in model.observe(range(40, 80)):
                model.forget_weights()
    return found


def test_it_computes_what_an_observer_computes(nano_path: Path) -> None:
    mapped = hidden_states(MappedObserver, nano_path)
    assert len(mapped) == 8
    assert mapped == hidden_states(Observer, nano_path)


def test_weights_lie_in_the_file(nano_path: Path) -> None:
    seen: dict[str, int] = {}

    def wants(node: GraphNode) -> bool:
        if node.operation == "MUL_MAT_ID":
            weight = node.source(0)
            seen[weight.name] = weight.address
        return False

    with MappedObserver(nano_path, wants, lambda _: True, window=64) as model:
        for _ in model.observe(range(40, 80)):
            pass
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        of_file = [line[0].split("-") for line in lines if line[-1] == str(nano_path.resolve())]
        spans = [(int(first, 16), int(last, 16)) for first, last in of_file]
        assert seen
        assert all(any(first <= place < last for first, last in spans) for place in seen.values())


def test_a_part_that_is_left_out_keeps_its_memory(nano_path: Path) -> None:
    """The memory of a node that is not computed can be filled with kept content."""
    kept: list[bytes] = []
    skipping = False
    left_out: list[GraphNode] = []
    names = ("l_out-0", "l_out-1")

    def wants(node: GraphNode) -> bool:
        if skipping and not any(each.name == "l_out-0" for each in left_out):
            node.leave_out()
            left_out.append(node)
        return node.name in names

    def sees(node: GraphNode) -> bool:
        if skipping and node.name == "l_out-0":
            for each in left_out:
                each.take_in()
            node.fill(kept[0])
        kept.append(node.content())
        return node.name != "l_out-1"

    with Observer(nano_path, wants, sees, window=64) as model:
        for _ in model.observe(range(40, 80)):
            pass
        for _ in model.observe(range(80, 120)):  # other values in the same memory
            pass
        skipping = True
        for _ in model.observe(range(80, 120)):
            pass
        assert kept[4:] == kept[:2]
        assert len(left_out) > 20
        node = left_out[-1]
        with pytest.raises(EngineFailed, match="3 were kept"):
            node.fill(b"abc")
    assert np.isfinite(np.frombuffer(kept[0], np.float32)).all()
