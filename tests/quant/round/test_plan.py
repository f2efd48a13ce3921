"""Which tensors are rounded with correction, what the plan says of the others, and the keys of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant.plan import QuantPlan
from quant.recipe.mixtures import standard
from quant.round.moments import begin
from quant.round.plan import plan_rounding
from quant.round.rounded_file import RoundedFile, read_rounding
from quant.sources.source import GgufSource
from quant.write.execute import prepare, write
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from tests.quant.models import model


@pytest.fixture
def source_path(tmp_path: Path) -> Path:
    return model(tmp_path / "source.gguf", layers=1)


def plan_of(source_path: Path, name: str = "q4_0") -> QuantPlan:
    with GgufSource(source_path) as source:
        return standard(name, source)


def test_matrices_are_rounded_and_the_embedding_is_not(source_path: Path) -> None:
    planned = plan_rounding(plan_of(source_path), "best", datasets=("notes",))
    efforts = {tensor.name: tensor.rounding for tensor in planned.tensors}
    assert efforts["blk.0.attn_q.weight"] == efforts["blk.0.ffn_down.weight"] == "best"
    assert efforts["token_embd.weight"] == efforts["blk.0.attn_norm.weight"] == ""
    assert planned.warnings[-1] == "1 quantized tensor cannot correct errors (rows that are looked up: 1)"


def test_types_and_sizes_stay(source_path: Path) -> None:
    plain = plan_of(source_path)
    planned = plan_rounding(plain, "fast", datasets=())
    assert [(each.name, each.target, each.bytes) for each in planned.tensors] == [
        (each.name, each.target, each.bytes) for each in plain.tensors
    ]
    assert planned.digest != plain.digest


def test_types_without_a_grid_keep_their_rounding(source_path: Path) -> None:
    planned = plan_rounding(plan_of(source_path, "q8_0"), "best", datasets=(), weights={"blk.0.attn_q.weight"})
    assert [each.name for each in planned.tensors if each.rounding] == ["blk.0.attn_q.weight"]
    assert "no second moments: 6" in planned.warnings[-1]
    untouched = plan_rounding(plan_of(source_path, "f16"), "best", datasets=())
    assert not any(each.rounding for each in untouched.tensors)
    assert untouched.warnings == plan_of(source_path, "f16").warnings


def test_the_file_tells_how_it_was_rounded(source_path: Path, tmp_path: Path) -> None:
    planned = plan_rounding(plan_of(source_path), "best", datasets=("notes", "notes", "tales"), tokens=123)
    assert {entry.key for entry in planned.metadata} >= {"dsr.round.effort", "dsr.round.datasets"}
    with GgufSource(source_path) as source:
        moments = begin(tmp_path / "moments", "", "", 0, [])  # of no matrix, so all keep the engine's rounding
        out = write(prepare(source, planned, tmp_path / "out.gguf", moments=moments), Run(threads=1))[0]
    assert read_rounding(read_card(out)) == RoundedFile("best", 7, 123, ("notes", "tales"))
    assert read_rounding(read_card(source_path)) is None
    with GgufSource(out) as again:
        assert not [each for each in standard("q4_0", again).metadata if each.key.startswith("dsr.round.")]
