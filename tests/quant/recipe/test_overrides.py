"""Types that the user names for single tensors, against the engine's own quantizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant.gguf.writer import layout
from quant.recipe import recipe
from quant.recipe.mixtures import standard
from quant.recipe.overrides import Overrides, TensorType, tensor_type
from quant.sources.source import GgufSource
from quant.write.execute import quantize
from runtime.base.errors import UsageError
from runtime.base.run import Run
from tests.quant.engine_quantizer import reference
from tests.quant.models import model

CASES = {
    "named": Overrides((TensorType("attn_v", "Q8_0"), TensorType(r"blk\.[01]\.ffn", "Q5_1"))),
    "the first counts": Overrides((TensorType("ffn_down", "Q5_0"), TensorType("ffn", "Q8_0"))),
    "pure": Overrides(pure=True),
    "pure with a name": Overrides((TensorType("output", "Q8_0"),), pure=True),
    "output kept": Overrides(keep_output=True),
    "all": Overrides((TensorType("attn_output", "IQ4_NL"),), pure=True, keep_output=True),
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=[*CASES])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_plan_with_named_types_is_the_header_of_the_engines_file(
    overrides: Overrides, tied: bool, tmp_path: Path
) -> None:
    source = model(tmp_path / "model.gguf", layers=8, tied=tied)
    for name in ("q4_k_m", "q3_k_m", "q4_0"):
        wanted = reference(source, tmp_path / "wanted.gguf", name, overrides=overrides).read_bytes()
        with GgufSource(source) as opened:
            plan = standard(name, opened, overrides)
        header = layout(plan.metadata, plan.tensors).header
        assert (name, header == wanted[: len(header)], int(plan.bytes)) == (name, True, len(wanted))


def test_a_file_with_named_types_is_the_engines_file(tmp_path: Path) -> None:
    source = model(tmp_path / "model.gguf", width=256, hidden=256, heads=64, kv_heads=8)
    overrides = Overrides((TensorType("ffn_down", "Q6_K"),), keep_output=True)
    wanted = reference(source, tmp_path / "wanted.gguf", "q4_k_m", overrides=overrides)
    with GgufSource(source) as opened:
        quantize(opened, standard("q4_k_m", opened, overrides), tmp_path / "ours.gguf", Run(threads=1))
    assert (tmp_path / "ours.gguf").read_bytes() == wanted.read_bytes()


def test_the_rules_of_a_recipe_give_way_to_named_types(nano_path: Path) -> None:
    with GgufSource(nano_path) as source:
        plan = recipe.plan(recipe.load("moe-q4"), source, Overrides((TensorType("attn_q_a", "Q3_K"),)))
        with pytest.raises(UsageError, match="--pure is for standard mixtures"):
            recipe.plan(recipe.load("moe-q4"), source, Overrides(pure=True))
    named = {tensor.rule: tensor.target for tensor in plan.tensors if "attn_q_a.weight" in tensor.name}
    assert named == {"--tensor-type attn_q_a": "Q3_K"}


def test_a_name_that_changes_nothing_is_refused(nano_path: Path) -> None:
    with GgufSource(nano_path) as source:
        with pytest.raises(UsageError, match="no tensor that can be quantized fits") as caught:
            standard("q4_0", source, Overrides((TensorType("norm", "Q8_0"),)))
        assert str(caught.value.hint).startswith("names are such as output, token_embd, attn_k_b")
        twice = Overrides((TensorType("ffn", "Q8_0"), TensorType("ffn_down", "Q6_K")))
        with pytest.raises(UsageError, match=r"an earlier --tensor-type is for blk\.0\.ffn_down\.weight"):
            standard("q4_0", source, twice)


def test_the_value_of_the_option() -> None:
    assert tensor_type("FFN_Down=q6_k") == TensorType("ffn_down", "Q6_K")
    assert tensor_type("^output[.]weight=f16") == TensorType("^output[.]weight", "F16")
    for text, problem in (
        ("ffn_down", "is PATTERN=TYPE, not 'ffn_down'"),
        ("=q6_k", "is PATTERN=TYPE"),
        ("ffn(=q6_k", "is no regular expression"),
        ("ffn=q6", "'q6' is not a type"),
    ):
        with pytest.raises(UsageError, match=problem):
            tensor_type(text)
