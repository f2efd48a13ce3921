"""A scout: the model up to its first router, and nothing else in earnest."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quant.convert.conversion import source_of
from quant.experts.router_probe import RouterProbe, _first
from quant.gguf import keyvalue
from quant.gguf.keyvalue import KeyValue, i32s
from quant.measure.routers import open_router_reader
from quant.recipe.recipe import load, plan
from quant.sources.checkpoint import open_checkpoint
from quant.sources.gguf_source import GgufSource
from quant.write.execute import quantize
from runtime.base.errors import Incompatible
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from tests.nextn import with_mtp
from tests.quant import tiny
from tests.quant.models import model

TOKENS = [9, 250, 17, 101, 44, 180, 12, 77, 203, 5, 66, 31]


def made(source: Path, out: Path) -> Path:
    with GgufSource(source) as whole:
        scout = RouterProbe(whole)
        file = scout.file_plan()
        quantize(scout, file, out, Run(threads=1))
    assert out.stat().st_size == file.bytes
    return out


def test_the_first_router_says_the_same_in_a_fifth_of_the_bytes(nano_path: Path, tmp_path: Path) -> None:
    out = made(nano_path, tmp_path / "scout.gguf")
    assert out.stat().st_size < nano_path.stat().st_size / 5
    said = []
    for path in (nano_path, out):
        with open_router_reader(path, 64, Run()) as reader:
            said.append(reader.first_logits(TOKENS))
    assert said[0].shape == (len(TOKENS), 16)
    np.testing.assert_array_equal(*said)


@pytest.mark.parametrize("make", [tiny.qwen3_moe, tiny.mixtral, tiny.deepseek_v3])
def test_scouts_of_other_architectures(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "checkpoint")
    source = source_of(open_checkpoint(tmp_path / "checkpoint"))
    [whole] = quantize(source, plan(load("f16"), source), tmp_path / "whole.gguf", Run(threads=1))
    said = []
    for path in (whole, made(whole, tmp_path / "scout.gguf")):
        with open_router_reader(path, 64, Run()) as reader:
            said.append(reader.first_logits(TOKENS))
    np.testing.assert_array_equal(*said)


def test_layers_that_predict_ahead_are_left_out(nano_path: Path, tmp_path: Path) -> None:
    card = read_card(made(with_mtp(tmp_path / "mtp.gguf", nano_path), tmp_path / "scout.gguf"))
    assert (card.layers, card.nextn_layers) == (2, 0)


def test_what_is_never_computed_is_zero_and_small(nano_path: Path, tmp_path: Path) -> None:
    card = read_card(made(nano_path, tmp_path / "scout.gguf"))
    assert (card.layers, card.experts) == (2, 16)
    assert {tensor.name.split(".")[1] for tensor in card.tensors if tensor.name.startswith("blk.")} == {"0", "1"}
    blank = [tensor for tensor in card.tensors if "exps" in tensor.name]
    assert {tensor.type for tensor in blank} == {"Q2_K"}
    with GgufSource(card.path) as scout:
        specs = {spec.name: spec for spec in scout.tensors}
        for tensor in blank:
            assert not scout.stored_rows(specs[tensor.name], 0, specs[tensor.name].rows).any()
        assert scout.stored_rows(specs["blk.1.ffn_gate_inp.weight"], 0, 16).any()


def test_a_dense_model_has_no_router(tmp_path: Path) -> None:
    with GgufSource(model(tmp_path / "dense.gguf")) as dense, pytest.raises(Incompatible, match="dense"):
        RouterProbe(dense)


def test_arrays_of_a_number_for_each_layer_are_cut() -> None:
    assert _first(i32s("x.head_count_kv", [8, 4, 2]), 2, 3) == i32s("x.head_count_kv", [8, 4])
    flags = KeyValue("x.windowed", struct.pack("<IIQ3?", 9, 7, 3, True, False, True))
    assert _first(flags, 1, 3) == KeyValue("x.windowed", struct.pack("<IIQ1?", 9, 7, 1, True))


@pytest.mark.parametrize(
    "entry",
    [i32s("x.sections", [1, 2, 3, 4]), keyvalue.u32("x.width", 3), keyvalue.texts("x.names", [b"a", b"b", b"c"])],
)
def test_other_metadata_stays(entry: KeyValue) -> None:
    assert _first(entry, 2, 3) == entry
