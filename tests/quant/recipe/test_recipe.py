"""Recipes: rules as data, the published sizes they must give, and what is wrong in a file."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.convert.conversion import expected_tensors
from quant.plan import TensorPlan, plain_type
from quant.recipe import mixtures, recipe
from quant.recipe.layer_choice import is_layer_choice, select_layers
from quant.recipe.mixtures import Mixture, ModelFacts
from quant.recipe.recipe import Recipe, assign, load, recipe_text, rounding_of
from quant.sources.source import GgufSource, TensorSpec
from runtime.base.errors import NotFound, UsageError
from tests.quant import models

CONFIGS = Path(__file__).parents[1] / "configs"
R1 = ModelFacts("deepseek2", 61, 128, 1, 256)
OURS = ("dq3_k_m", "moe-q3", "moe-q4", "ud-iq1_m", "ud-iq1_s", "ud-iq2_xxs", "ud-q2_k_xl")
RULE = '[[rule]]\ntype = "q4_k"\nwhy = "so"\nsource = "us"\n'
HEAD = 'summary = "mine"\nlabel = "q4_k_m"\n'


@cache
def model(name: str) -> tuple[TensorSpec, ...]:
    return expected_tensors(json.loads((CONFIGS / f"{name}.json").read_text()))


def planned(name: str, tensors: tuple[TensorSpec, ...]) -> tuple[TensorPlan, ...]:
    found = load(name)
    if isinstance(found, Mixture):
        return mixtures.assign(found, tensors, R1, importance=False)
    return assign(found, tensors)


def bits(plan: tuple[TensorPlan, ...]) -> float:
    return sum(each.bytes for each in plan) * 8 / sum(each.parameters for each in plan)


def written(tmp_path: Path, text: str, name: str = "mine.toml") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def own(tmp_path: Path, text: str) -> Recipe:
    found = load(written(tmp_path, text))
    assert isinstance(found, Recipe)
    return found


@pytest.mark.parametrize(
    ("name", "published"), [("q4_k_m", 4.82), ("q3_k_m", 3.81), ("dq3_k_m", 3.59), ("ud-q2_k_xl", 2.70)]
)
def test_deepseek_r1_has_the_published_bits_per_weight(name: str, published: float) -> None:
    assert abs(bits(planned(name, model("deepseek-r1"))) - published) < 0.01


@pytest.mark.parametrize(
    ("name", "size"),
    [("dq3_k_m", 280.2), ("ud-q2_k_xl", 211.1), ("ud-iq2_xxs", 181.2), ("ud-iq1_m", 157.4), ("ud-iq1_s", 130.1)],
)
def test_deepseek_r1_has_the_published_size(name: str, size: float) -> None:
    gib = sum(each.bytes for each in planned(name, model("deepseek-r1"))) / 2**30
    assert abs(gib - size) < 0.06


def test_dq3_k_m_has_the_published_shares_of_types_in_the_down_projections() -> None:
    plan = planned("dq3_k_m", model("deepseek-r1"))
    types = Counter(each.target for each in plan if "ffn_down_exps" in each.name)
    assert types == {"Q3_K": 44, "Q4_K": 12, "Q6_K": 2}
    by_name = {each.name: each for each in plan}
    assert by_name["blk.4.ffn_down_exps.weight"].rule == "dq3_k_m: routed experts, ffn_down_exps, first 2 moe"
    assert by_name["blk.5.ffn_down_exps.weight"].rule == "dq3_k_m: routed experts, ffn_down_exps, every 5th"
    assert by_name["blk.6.ffn_down_exps.weight"].rule == "dq3_k_m: routed experts"
    assert by_name["blk.6.ffn_down_shexp.weight"].rule.startswith("_moe_frame: dense ffn or shared experts")
    assert (by_name["blk.0.attn_k_b.weight"].target, by_name["blk.0.attn_k_b.weight"].wanted) == ("Q8_0", "Q6_K")
    assert (by_name["blk.9.ffn_gate_inp.weight"].target, by_name["blk.9.ffn_gate_inp.weight"].rule) == (
        "F32",
        "not quantized",
    )


@pytest.mark.parametrize(
    ("name", "r1", "qwen3"),
    [("dq3_k_m", 3.588, 3.635), ("moe-q3", 3.707, 3.803), ("moe-q4", 4.772, 4.834), ("ud-iq1_s", 1.666, 1.763)],
)
def test_recipes_for_experts_hold_for_other_families(name: str, r1: float, qwen3: float) -> None:
    assert bits(planned(name, model("deepseek-r1"))) == pytest.approx(r1, abs=0.001)
    assert bits(planned(name, model("qwen3-30b-a3b"))) == pytest.approx(qwen3, abs=0.001)


@pytest.mark.parametrize("name", ["moe-q3", "moe-q4"])
def test_expert_aware_is_high_outside_of_routed_experts_and_low_inside(name: str) -> None:
    for config in ("deepseek-r1", "qwen3-30b-a3b"):
        plan = planned(name, model(config))
        low = {each.target for each in plan if "_gate_exps" in each.name or "_up_exps" in each.name}
        assert low == {"Q3_K" if name == "moe-q3" else "Q4_K"}
        rest = {each.target for each in plan if "_exps" not in each.name and each.rule != "not quantized"}
        assert rest == {"Q6_K", "Q8_0"}


@pytest.mark.parametrize("config", ["deepseek-r1", "qwen3-30b-a3b", "r1-distill-qwen-7b"])
@pytest.mark.parametrize("wanted", ["f32", "f16", "bf16"])
def test_plain_conversion_has_the_types_of_the_converter(config: str, wanted: str) -> None:
    tensors = model(config)
    ours = {each.name: each.target for each in planned(wanted, tensors)}
    assert ours == {each.name: plain_type(each, wanted) for each in tensors}  # type: ignore[arg-type]


def test_every_recipe_loads_and_says_what_it_is() -> None:
    names = recipe.names()
    assert names[:4] == ("f32", "bf16", "f16", "q8_0")
    assert names[4:11] == OURS
    assert set(names) == set(mixtures.MIXTURES) | set(OURS)
    for name in names:
        assert load(name).name == name
        assert 10 < len(recipe.summary(name)) <= 68
        assert recipe.source_text(name).endswith("\n")


def test_every_shipped_rule_has_a_reason_and_a_marked_source_or_is_ours() -> None:
    for name in OURS:
        found = load(name)
        assert isinstance(found, Recipe)
        for rule in found.rules:
            assert len(rule.why) > 10
            assert any(mark in rule.source for mark in ("[V]", "[A]", "[C]", "[M]", "measured", "our")), rule


def test_names_are_found_in_any_case_and_unknown_ones_get_a_suggestion() -> None:
    assert load("DQ3_K_M").name == "dq3_k_m"
    assert load("Q4_K_M").name == "q4_k_m"
    with pytest.raises(UsageError, match="there is no recipe 'dq3km'") as caught:
        load("dq3km")
    assert (caught.value.hint or "").startswith("did you mean dq3_k_m?")
    with pytest.raises(UsageError, match="no recipe '_moe_frame'"):
        load("_moe_frame")


def test_the_first_rule_that_matches_decides(tmp_path: Path) -> None:
    first = '[[rule]]\nname = "attn_v*"\nlayers = "1-2"\ntype = "Q8_0"\nwhy = "so"\nsource = "us"\n'
    whole = '[[rule]]\nname = "blk.0.attn_q.weight"\ntype = "f16"\nwhy = "so"\nsource = "us"\n'
    tensors = [TensorSpec(f"blk.{n}.attn_{part}.weight", (256, 8), "BF16") for n in range(3) for part in "qv"]
    plan = assign(own(tmp_path, HEAD + first + whole + RULE), tensors)
    assert [(each.name, each.target, each.rule) for each in plan] == [
        ("blk.0.attn_q.weight", "F16", "mine: blk.0.attn_q.weight"),
        ("blk.0.attn_v.weight", "Q4_K", "mine: all else"),
        ("blk.1.attn_q.weight", "Q4_K", "mine: all else"),
        ("blk.1.attn_v.weight", "Q8_0", "mine: attn_v*, 1-2"),
        ("blk.2.attn_q.weight", "Q4_K", "mine: all else"),
        ("blk.2.attn_v.weight", "Q8_0", "mine: attn_v*, 1-2"),
    ]


def test_an_embedding_that_is_the_output_too_follows_the_rules_of_the_output(tmp_path: Path) -> None:
    output = '[[rule]]\nrole = "output"\ntype = "q6_k"\nwhy = "so"\nsource = "us"\n'
    mine = own(tmp_path, HEAD + output + RULE)
    embedding = TensorSpec("token_embd.weight", (256, 8), "BF16")
    assert [each.target for each in assign(mine, [embedding])] == ["Q6_K"]
    separate = [embedding, TensorSpec("output.weight", (256, 8), "BF16")]
    assert {each.name: each.target for each in assign(mine, separate)} == {
        "token_embd.weight": "Q4_K",
        "output.weight": "Q6_K",
    }


def test_a_tensor_without_a_rule_is_named(tmp_path: Path) -> None:
    mine = own(tmp_path, HEAD + RULE + 'role = "output"\n')
    with pytest.raises(UsageError, match=r"mine: no rule is for blk\.0\.attn_q\.weight \(attention\)"):
        assign(mine, [TensorSpec("blk.0.attn_q.weight", (256, 8), "BF16")])


def test_included_rules_come_behind(tmp_path: Path) -> None:
    written(tmp_path, RULE, "base.toml")
    mine = own(tmp_path, HEAD + 'include = ["base.toml", "_moe_high"]\n' + RULE.replace("q4_k", "q5_k"))
    assert [(rule.recipe, rule.type) for rule in mine.rules] == [
        ("mine", "Q5_K"),
        ("base", "Q4_K"),
        ("_moe_high", "Q8_0"),
        ("_moe_high", "Q6_K"),
        ("_moe_high", "Q8_0"),
    ]


def test_a_recipe_says_how_errors_of_rounding_are_corrected(tmp_path: Path) -> None:
    mine = own(tmp_path, HEAD + 'round = "Best"\n' + RULE)
    assert (mine.rounding, rounding_of(mine)) == ("best", "best")
    including = written(tmp_path, HEAD + 'include = "mine.toml"\n', "outer.toml")
    assert rounding_of(load(including)) == "off"
    assert rounding_of(load("q4_k_m")) == "off"


def test_recipes_that_include_each_other_are_refused(tmp_path: Path) -> None:
    written(tmp_path, 'include = "mine.toml"\n', "other.toml")
    with pytest.raises(UsageError, match=r"mine\.toml includes it in turn"):
        own(tmp_path, HEAD + 'include = "other.toml"\n')
    with pytest.raises(UsageError, match="includes it in turn"):
        own(tmp_path, HEAD + 'include = "mine.toml"\n')


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        (HEAD + "rules = 1\n", r"mine\.toml: the key 'rules' is not known", "did you mean rule?"),
        (HEAD + RULE + "wy = 1\n", r"mine\.toml: the key 'wy' in rule 1 is not known", "did you mean why?"),
        (HEAD + RULE + 'role = "norms"\n', r"mine\.toml: role in rule 1 cannot be 'norms'", "did you mean norm?"),
        (HEAD + RULE.replace("q4_k", "q4k"), "type in rule 1 cannot be 'q4k'", "did you mean q4_k?"),
        (HEAD + RULE.replace("q4_k", "i32"), "type in rule 1 cannot be 'i32'", "did you mean f32?"),
        (HEAD + RULE + 'layers = "fist 2"\n', "layers in rule 1: 'fist 2' is not understood", "as in 'first 2'"),
        (HEAD + RULE + "layers = 3\n", "layers in rule 1 is not a text", ""),
        (HEAD + RULE + "name = [1]\n", "name in rule 1 is neither a text nor a list of texts", ""),
        (HEAD + RULE.replace("why", "#"), "why is missing in rule 1", "a rule needs type, why, source"),
        (HEAD + "[rule]\n", r"rule must be \[\[rule\]\] tables", ""),
        (HEAD.replace("q4_k_m", "q4_k_x") + RULE, "label cannot be 'q4_k_x'", "did you mean q4_k_"),
        (HEAD + 'include = "moe_q4"\n' + RULE, "include cannot be 'moe_q4'", "did you mean moe-q4?"),
        (HEAD + 'round = "bst"\n' + RULE, r"mine\.toml: round cannot be 'bst'", "did you mean best?"),
        (HEAD + "round = true\n" + RULE, "round is not a text", ""),
        (RULE, "label cannot be ''", "one of "),
        ("[", "not valid TOML", ""),
        ("a = " + "[" * 5000, "nested too deeply", ""),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_key(text: str, problem: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        load(written(tmp_path, text))
    assert (caught.value.hint or "").startswith(hint)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.toml: no such file"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "raw.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not a text file"):
        load(str(tmp_path / "raw.toml"))
    with pytest.raises(UsageError, match="is a folder"):
        load(str(tmp_path) + "/")


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        ("first 2", {0, 1}),
        ("first 2 moe", {3, 4}),
        ("last 2 moe", {14, 15}),
        ("dense", {0, 1, 2}),
        ("moe", set(range(3, 16))),
        ("first eighth", {0, 1}),
        ("last eighth", {14, 15}),
        ("last quarter moe", {12, 13, 14, 15}),
        ("every 5th", {0, 5, 10, 15}),
        ("every 5th moe", {3, 8, 13}),
        ("more bits", {0, 1, 4, 7, 10, 13, 14, 15}),
        ("7", {7}),
        ("14-99", {14, 15}),
        ("first 1,  7-8 ,last 1", {0, 7, 8, 15}),
    ],
)
def test_layers_in_words(words: str, layers: set[int]) -> None:
    assert is_layer_choice(words)
    assert select_layers(words, 16, range(3, 16)) == layers


@pytest.mark.parametrize("words", ["", "first", "first 0", "every", "every 5", "first 2 foo", "1,,2", "-3", "all"])
def test_layers_that_are_not_understood(words: str) -> None:
    assert not is_layer_choice(words)


@given(st.text(alphabet="first lave 0123moe,-hdn", max_size=30), st.integers(0, 40), st.integers(0, 40))
def test_layers_are_always_the_models_own(words: str, layers: int, dense: int) -> None:
    if is_layer_choice(words):
        assert select_layers(words, layers, range(dense, layers)) <= set(range(layers))


def test_a_saved_plan_gives_the_same_plan_again(tmp_path: Path) -> None:
    path = models.model(tmp_path / "model.gguf", layers=4, width=256, hidden=64)
    with GgufSource(path) as source:
        wanted = mixtures.standard("q4_k_m", source)
        saved = tmp_path / "mine.toml"
        saved.write_text(recipe_text(wanted, 'so "good"', "[C] measured"), encoding="utf-8")
        found = recipe.plan(recipe.load(str(saved)), source)
    assert found.digest == wanted.digest
    loaded = recipe.load(str(saved))
    assert isinstance(loaded, recipe.Recipe)
    assert loaded.summary == 'so "good"'
    assert loaded.label.name == "q4_k_m"
    assert {rule.source for rule in loaded.rules} == {"[C] measured"}
