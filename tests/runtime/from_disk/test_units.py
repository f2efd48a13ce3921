from pathlib import Path

import pytest

from runtime.base.errors import UsageError
from runtime.from_disk.units import FromDisk, units_of
from runtime.gguf.reader import read_card


def test_units_of_a_mixture_are_the_routed_experts_of_its_layers(nano_path: Path) -> None:
    units = units_of(read_card(nano_path))
    assert (units.layers, units.experts, units.count, units.routed) == ((1, 2, 3), 16, 48, True)
    assert units.sizes == (208896, 208896, 208896)
    assert sorted(stack.name for stack in units.stacks if stack.index == 0) == [
        "blk.1.ffn_down_exps.weight",
        "blk.1.ffn_gate_exps.weight",
        "blk.1.ffn_up_exps.weight",
    ]


def test_the_slices_of_a_stack_fill_its_tensor(nano_path: Path) -> None:
    card = read_card(nano_path)
    sizes = {tensor.name: (tensor.offset, tensor.size) for tensor in card.tensors}
    for stack in units_of(card).stacks:
        assert (stack.offset, stack.size * stack.count) == sizes[stack.name]


def test_units_of_dense_layers_are_whole_layers_without_norms(nano_path: Path) -> None:
    units = units_of(read_card(nano_path), layers=(0,))
    assert (units.layers, units.experts, units.count, units.routed) == ((0,), 1, 1, False)
    assert all("norm" not in stack.name and stack.count == 1 for stack in units.stacks)
    assert "blk.0.ffn_up.weight" in {stack.name for stack in units.stacks}


def test_no_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="not 0 bytes"):
        FromDisk(0)
