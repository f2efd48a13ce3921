"""Every class that can be converted, on a tiny random checkpoint: as llama.cpp's converter makes it, and it runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from quant.convert.architectures import configured
from quant.convert.conversion import expected_tensors, source_of
from quant.convert.families import FAMILIES
from quant.recipe.recipe import load, plan
from quant.sources.checkpoint import open_checkpoint
from quant.write.execute import quantize
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.placement.trial import try_file
from tests.quant import digests
from tests.quant.tiny import stored, write_safetensors
from tests.quant.tiny_models import KEEPING, MODELS, config_of, make_tiny

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every tiny checkpoint, to be read only."""
    root = tmp_path_factory.mktemp("tiny")
    for name in MODELS:
        make_tiny(name, root / name)
    return {name: root / name for name in MODELS}


def test_every_family_has_a_tiny_model() -> None:
    tried = {id(configured(config_of(name), Path(name))[0]) for name in MODELS}
    assert [family.classes for family in FAMILIES if id(family) not in tried] == []


def test_every_family_is_listed_once() -> None:
    assert len({id(family) for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("name", MODELS)
def test_the_result_is_that_of_llama_cpps_converter(folders: dict[str, Path], name: str) -> None:
    """Names, order, types, shapes and bytes of tensors, and metadata; tests/peers/convert.py made the reference."""
    made, reference = (
        digests.of_source(source_of(open_checkpoint(folders[name]), keep_mtp=name in KEEPING), "bf16"),
        json.loads((REFERENCE / f"{name}.json").read_text()),
    )
    assert made["tensors"] == reference["tensors"]
    assert sorted(made["metadata"]) == sorted(reference["metadata"])


def test_exaones_epsilon_has_the_key_that_the_engine_reads_under_both_names_in_config(tmp_path: Path) -> None:
    published = {"rms_norm_eps": None, "layer_norm_epsilon": 1e-5}
    make_tiny("ExaoneForCausalLM", tmp_path / "published", changes=published)
    keys = {entry.key for entry in source_of(open_checkpoint(tmp_path / "published")).metadata}
    assert "exaone.attention.layer_norm_rms_epsilon" in keys


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("MiMoForCausalLM", "model.mtp_layers.0.input_proj.weight"),
        ("ExaoneMoEForCausalLM", "mtp.layers.0.self_attn.q_proj.weight"),
        ("Exaone4_5_ForConditionalGeneration", "mtp.fc.weight"),
    ],
)
def test_layers_that_the_engine_cannot_predict_with_are_left_out(tmp_path: Path, name: str, layer: str) -> None:
    make_tiny(name, folder := tmp_path / name)
    write_safetensors(folder / "mtp.safetensors", {layer: stored(np.zeros((4, 4), np.float32), "BF16")})
    files = dict.fromkeys(open_checkpoint(folder).tensors, "model.safetensors") | {layer: "mtp.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert layer in open_checkpoint(folder).tensors
    found = source_of(open_checkpoint(folder)).tensors
    reference = json.loads((REFERENCE / f"{name}.json").read_text())
    assert [tensor.name for tensor in found] == [each[0] for each in reference["tensors"]]


@pytest.mark.parametrize("name", MODELS)
def test_rows_read_in_pieces_are_the_rows_read_at_once(folders: dict[str, Path], name: str) -> None:
    source = source_of(open_checkpoint(folders[name]), keep_mtp=name in KEEPING)
    for tensor in source.tensors:
        whole = source.read(tensor, 0, tensor.rows)
        for first in range(0, tensor.rows, 7):
            count = min(7, tensor.rows - first)
            np.testing.assert_array_equal(source.read(tensor, first, count), whole[first : first + count])


@pytest.mark.parametrize("name", MODELS)
def test_config_alone_tells_the_same_tensors(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    source = source_of(open_checkpoint(folders[name]))
    expected = expected_tensors(config_of(name))
    assert sorted((tensor.name, tensor.shape) for tensor in expected) == sorted(
        (tensor.name, tensor.shape) for tensor in source.tensors
    )
    shutil.copy(folders[name] / "config.json", tmp_path)
    assert source_of(open_checkpoint(tmp_path)).tensors == expected


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_opens_it(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    source, out = source_of(open_checkpoint(folders[name]), keep_mtp=name in KEEPING), tmp_path / "tiny.gguf"
    quantize(source, plan(load("f16"), source), out, Run(threads=1))
    try_file(read_card(out), Run(threads=1))
