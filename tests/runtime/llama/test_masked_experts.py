"""Masked experts: the numbers are those of a model whose routers cannot choose them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.base.errors import Incompatible
from runtime.gguf.reader import read_card
from runtime.llama import MaskedScorer, Scorer

EXPERTS = 16
KEPT = {1: (0, 2, 3, 5, 8, 9), 2: (1, 4, 6, 7, 12, 13), 3: (0, 1, 2, 3, 4, 5)}
TOKENS = [9, 250, 17, 101, 44, 180, 12, 77, 203, 5, 66, 31]


def read(model: Scorer, tokens: Sequence[int] = TOKENS, first: int = 0) -> NDArray[np.float32]:
    return np.concatenate([block.copy() for block in model.score(tokens, first)])


def forbidden(nano: Path, out: Path, kept: Mapping[int, Sequence[int]]) -> Path:
    """A copy of the model whose own bias keeps the other experts from being chosen."""
    shutil.copy(nano, out)
    with out.open("r+b") as file:
        for tensor in read_card(nano).tensors:
            if named := re.fullmatch(r"blk\.(\d+)\.exp_probs_b\.bias", tensor.name):
                file.seek(tensor.offset)
                bias = np.frombuffer(file.read(4 * EXPERTS), "<f4").copy()
                bias[[n for n in range(EXPERTS) if n not in kept[int(named[1])]]] = -1e30
                file.seek(tensor.offset)
                file.write(bias.tobytes())
    return out


def test_masked_experts_are_as_far_away_as_a_bias_can_put_them(nano_path: Path, tmp_path: Path) -> None:
    with Scorer(forbidden(nano_path, tmp_path / "forbidden.gguf", KEPT), window=512) as model:
        expected = read(model)
    with MaskedScorer(nano_path, window=512) as model:
        whole = read(model)
        model.keep(KEPT, EXPERTS)
        masked = read(model)
    assert np.array_equal(masked, expected)
    assert np.abs(masked - whole).max() > 0.1


def test_masks_follow_one_another_and_go_again(nano_path: Path) -> None:
    with MaskedScorer(nano_path, window=512) as model:
        whole = read(model)
        model.keep({1: (0, 1, 2, 3)}, EXPERTS)
        narrow = read(model)
        model.keep({2: range(EXPERTS)}, EXPERTS)
        assert np.array_equal(read(model), whole)
        model.keep({1: (0, 1, 2, 3)}, EXPERTS)
        assert np.array_equal(read(model), narrow)
        model.keep(None)
        assert np.array_equal(read(model), whole)
    with Scorer(nano_path, window=512) as model:
        assert np.array_equal(read(model), whole)
    assert not np.array_equal(narrow, whole)


def test_batches_without_logits_are_masked_too(nano_path: Path, tmp_path: Path) -> None:
    tokens = [8 + number % 600 for number in range(700)]
    with Scorer(forbidden(nano_path, tmp_path / "forbidden.gguf", KEPT), window=700) as model:
        expected = read(model, tokens, 600)
    with MaskedScorer(nano_path, window=700) as model:
        model.keep(KEPT, EXPERTS)
        assert np.array_equal(read(model, tokens, 600), expected)


def test_metadata_can_be_taken_for_another(nano_path: Path) -> None:
    with MaskedScorer(nano_path, window=512) as model:
        whole = read(model)
    with MaskedScorer(nano_path, window=512, metadata={"deepseek2.expert_used_count": 2}) as model:
        assert np.abs(read(model) - whole).max() > 0.1
    with MaskedScorer(nano_path, window=512, metadata={"deepseek2.expert_used_count": 4}) as model:
        assert np.array_equal(read(model), whole)


@pytest.mark.parametrize("numbers", [(), (16,), (-1, 2)])
def test_experts_that_there_are_not_cannot_be_kept(nano_path: Path, numbers: tuple[int, ...]) -> None:
    with MaskedScorer(nano_path, window=512) as model, pytest.raises(ValueError, match="among 16 experts"):
        model.keep({1: numbers}, EXPERTS)


def test_a_layer_without_a_router_cannot_be_masked(nano_path: Path) -> None:
    with MaskedScorer(nano_path, window=512) as model:
        model.keep({0: (1, 2)}, EXPERTS)
        with pytest.raises(Incompatible, match="the engine does not show the router of layer 0"):
            read(model)
