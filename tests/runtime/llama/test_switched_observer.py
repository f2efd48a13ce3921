"""Weights with two contents: results change and come back, and nothing is copied into the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.sources.source import GgufSource
from runtime.base.errors import EngineFailed
from runtime.gguf.types import BY_NAME
from runtime.llama import Scorer, SwitchedObserver, dequantize_rows, quantize_rows

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="weights are mapped on Linux alone")
TOKENS = [9, 250, 17, 101, 44, 180, 12, 77, 203, 5, 66, 31]
DOWN, EMBEDDING = "blk.0.ffn_down.weight", "token_embd.weight"


def read(model: Scorer) -> NDArray[np.float32]:
    return np.concatenate([block.copy() for block in model.score(TOKENS)])


def opened(path: Path, looked: list[str]) -> SwitchedObserver:
    model: SwitchedObserver | None = None

    def wants(node: object) -> bool:
        if model is not None and not looked:
            model.look(node)  # type: ignore[arg-type]
        return False

    model = SwitchedObserver(path, wants, lambda _: True, window=512)
    return model


def test_other_weights_count_until_the_files_own_are_used_again(nano_path: Path) -> None:
    with GgufSource(nano_path) as source:
        rows = {each.name: source.read(each, 0, each.rows) for each in source.tensors if each.name in (DOWN, EMBEDDING)}
    looked: list[str] = []
    with opened(nano_path, looked) as model:
        before = read(model)
        looked.append("all")
        assert model.shows(DOWN)
        assert not model.shows("blk.9.ffn_down.weight")
        model.put(DOWN, BY_NAME["F32"], rows[DOWN].view(np.uint8))
        model.use_others()
        same = read(model)  # the same values in another type
        assert 0 < np.abs(same - before).max() < 0.3
        model.put(DOWN, BY_NAME["F32"], (-rows[DOWN]).view(np.uint8))
        model.use_others()
        assert np.abs(read(model) - before).max() > 1
        model.use_file()
        assert np.array_equal(read(model), before)
        model.use_others()
        model.drop([DOWN])
        model.use_others()
        assert np.array_equal(read(model), before)
        with pytest.raises(EngineFailed, match=r"does not show the weight blk\.9"):
            model.put("blk.9.ffn_down.weight", BY_NAME["F32"], rows[DOWN].view(np.uint8))


def test_an_embedding_may_lie_in_a_quantized_type(nano_path: Path) -> None:
    with GgufSource(nano_path) as source:
        rows = next(source.read(each, 0, each.rows) for each in source.tensors if each.name == EMBEDDING)
    number, found = BY_NAME["Q4_K"].number, []
    stored = quantize_rows(number, rows)
    looked: list[str] = []
    with opened(nano_path, looked) as model:
        read(model)
        looked.append("all")
        values = dequantize_rows(number, stored)
        for kind, content in (("Q4_K", stored), ("F32", values.view(np.uint8))):
            model.put(EMBEDDING, BY_NAME[kind], content)
            model.use_others()
            found.append(read(model))
            model.use_file()
    assert np.array_equal(*found)
