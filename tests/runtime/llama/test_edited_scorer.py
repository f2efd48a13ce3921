"""Weights that are replaced in memory: results change and come back, and the file stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.sources.source import GgufSource
from runtime.base.errors import EngineFailed
from runtime.llama import EditedScorer, Scorer

TOKENS = [9, 250, 17, 101, 44, 180, 12, 77, 203, 5, 66, 31]
ROUTER, ATTENTION = "blk.1.ffn_gate_inp.weight", "blk.1.attn_output.weight"


def read(model: Scorer) -> NDArray[np.float32]:
    return np.concatenate([block.copy() for block in model.score(TOKENS)])


def test_replaced_rows_count_and_can_be_given_back(nano_path: Path) -> None:
    with GgufSource(nano_path) as source:
        spec = next(tensor for tensor in source.tensors if tensor.name == ROUTER)
        rows = source.read(spec, 0, spec.rows)
    with EditedScorer(nano_path, window=512) as model:
        before = read(model)
        model.find([ROUTER], TOKENS)
        model.replace(ROUTER, 2, -rows[2:9])
        assert np.abs(read(model) - before).max() > 0.1
        model.replace(ROUTER, 0, rows)
        assert np.array_equal(read(model), before)
        for first, wrong in ((10, rows[:7]), (-1, rows[:1]), (0, rows[:, :128])):
            with pytest.raises(EngineFailed, match=ROUTER):
                model.replace(ROUTER, first, wrong)
        assert np.array_equal(read(model), before)
    with GgufSource(nano_path) as source:
        assert np.array_equal(source.read(spec, 0, spec.rows), rows)


def test_quantized_and_unknown_weights_are_refused(nano_path: Path) -> None:
    with EditedScorer(nano_path, window=512) as model:
        with pytest.raises(EngineFailed, match=r"does not show the weight blk\.9\.attn_output\.weight"):
            model.find([ATTENTION, "blk.9.attn_output.weight"], TOKENS)
        model.find([ATTENTION], TOKENS)
        with pytest.raises(EngineFailed, match="lays it out in another way"):
            model.replace(ATTENTION, 0, np.zeros((1, 256), np.float32))
