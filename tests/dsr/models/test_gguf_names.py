from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.models.gguf_names import (
    check_file_name,
    choose_files,
    foreign_program,
    is_model_file,
    quant_of,
    quants_in,
)
from runtime.base.errors import DsrError, NotFound, UsageError, VerificationFailed
from runtime.gguf.types import ONLY_IK_LLAMA

R1 = [f"UD-Q2_K_XL/R1-UD-Q2_K_XL-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-fp16.gguf", "F16"),
        ("Qwen3-8B.Q5_K_S.gguf", "Q5_K_S"),
        ("model.i1-IQ1_S.gguf", "IQ1_S"),
        ("UD-Q2_K_XL/DeepSeek-R1-UD-Q2_K_XL-00001-of-00005.gguf", "UD-Q2_K_XL"),
        ("DeepSeek-R1-UD-IQ1_M/DeepSeek-R1-UD-IQ1_M-00001-of-00004.gguf", "UD-IQ1_M"),
        ("UD-TQ1_0/R1-UD-TQ1_0.gguf", "UD-TQ1_0"),
        ("BF16/DeepSeek-R1.BF16-00001-of-00030.gguf", "BF16"),
        ("Q8_0/model-00001-of-00015.gguf", "Q8_0"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "MXFP4"),
        ("Qwen3-30B-A3B-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("Qwen_QwQ-32B-Q6_K_L.gguf", "Q6_K_L"),
        ("Qwen_QwQ-32B-Q3_K_XL.gguf", "Q3_K_XL"),
        ("DeepSeek-V3-Q2_K_XS/DeepSeek-V3-Q2_K_XS-00001-of-00005.gguf", "Q2_K_XS"),
        ("x-IQ2_XXS.gguf", "IQ2_XXS"),
        ("M-Q4_K_R4.gguf", "Q4_K_R4"),
        ("M-Q8_0_R8.gguf", "Q8_0_R8"),
        ("M-IQ4_XS_R8.gguf", "IQ4_XS_R8"),
        ("M-bf16_r16.gguf", "BF16_R16"),
        ("M-smol-IQ2_KS-00001-of-00003.gguf", "IQ2_KS"),
        ("M-IQ1_BN.gguf", "IQ1_BN"),
        ("M-Q8_KV.gguf", "Q8_KV"),
        ("x-IQ4_NL.gguf", "IQ4_NL"),
        ("x-iq4_xs.gguf", "IQ4_XS"),
        ("x-IQ2_KS.gguf", "IQ2_KS"),
        ("x-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("x-Q2_K.gguf", "Q2_K"),
        ("x-Q5_1.gguf", "Q5_1"),
        ("x-f32.gguf", "F32"),
        ("x-TQ2_0.gguf", "TQ2_0"),
        ("r1-DQ3_K_M.gguf", "DQ3_K_M"),
        ("Qwen3-8B-128K-UD-Q8_K_XL.gguf", "UD-Q8_K_XL"),
        ("Qwen3-8B-Q4_K_M-imat.gguf", "Q4_K_M"),
        ("folder\\x-Q8_0.gguf", "Q8_0"),
        ("nano.gguf", None),
        ("Qwen3-8B.gguf", None),
        ("IQ-test-model.gguf", None),
        ("FAQ4_0.gguf", None),
    ],
)
def test_the_quantization_is_read_from_common_spellings(name: str, quant: str | None) -> None:
    assert quant_of(name) == quant


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("x-Q4_K_M.gguf", True),
        ("x.GGUF", True),
        ("model-imatrix-Q4_K_M.gguf", True),
        ("mmproj-F16.gguf", False),
        ("x-mmproj-model-f16.gguf", False),
        ("imatrix_unsloth.gguf", False),
        ("x.imatrix.gguf", False),
        ("imatrix.dat", False),
        ("README.md", False),
    ],
)
def test_projectors_and_importance_matrices_are_no_models(name: str, yes: bool) -> None:
    assert is_model_file(name) is yes


def test_all_shards_of_one_quantization_come_in_order() -> None:
    files = [R1[2], "README.md", "x-Q4_K_M.gguf", R1[0], "mmproj-UD-Q2_K_XL.gguf", R1[1]]
    assert choose_files(files, "ud-q2_k_xl") == tuple(R1)


def test_the_prefix_of_dynamic_quantizations_may_be_left_out_where_nothing_else_has_the_name() -> None:
    assert choose_files(R1, "Q2_K_XL") == tuple(R1)
    assert choose_files(["a-UD-Q4_K_M.gguf", "a-Q4_K_M.gguf"], "q4_k_m") == ("a-Q4_K_M.gguf",)


def test_a_missing_shard_is_named() -> None:
    with pytest.raises(VerificationFailed, match=r"R1-UD-Q2_K_XL-00002-of-00003\.gguf"):
        choose_files([R1[0], R1[2]], "UD-Q2_K_XL")


def test_a_shard_too_many_is_refused() -> None:
    with pytest.raises(VerificationFailed, match="disagree"):
        choose_files([*R1, "UD-Q2_K_XL/R1-UD-Q2_K_XL-00004-of-00003.gguf"], "UD-Q2_K_XL")


def test_shard_counts_that_disagree_are_refused() -> None:
    with pytest.raises(UsageError, match="several models"):
        choose_files(["a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00003.gguf"], "Q8_0")


def test_candidates_are_shown_when_the_quantization_is_not_there() -> None:
    with pytest.raises(NotFound, match="no Q4_0") as caught:
        choose_files(["a-Q8_0.gguf", "a-IQ1_S.gguf"], "Q4_0")
    assert caught.value.hint == "it has: Q8_0, IQ1_S"


def test_two_models_of_one_quantization_are_told_apart_by_their_names() -> None:
    files = ["small-Q8_0.gguf", "large-Q8_0.gguf", "large-Q4_0.gguf"]
    with pytest.raises(UsageError, match="small-Q8_0, large-Q8_0"):
        choose_files(files, "Q8_0")
    assert choose_files(files, "LARGE-Q8_0") == ("large-Q8_0.gguf",)
    assert choose_files(files, "Q4_0") == ("large-Q4_0.gguf",)


def test_of_a_model_in_one_file_and_in_parts_the_one_file_is_taken() -> None:
    sizes = {"qwq-q4_k_m.gguf": 9, "qwq-q4_k_m-00001-of-00002.gguf": 5, "qwq-q4_k_m-00002-of-00002.gguf": 5}
    assert choose_files(list(sizes), "Q4_K_M") == ("qwq-q4_k_m.gguf",)
    assert [choice.files for choice in quants_in(sizes)] == [("qwq-q4_k_m.gguf",)]


def test_a_file_without_a_quantization_is_chosen_by_its_own_name() -> None:
    assert choose_files(["model.gguf"], "model") == ("model.gguf",)


def test_quantizations_are_listed_by_size_and_only_when_whole() -> None:
    sizes = {"a-Q8_0.gguf": 900, R1[0]: 100, R1[1]: 100, R1[2]: 50, "b-F16-00001-of-00002.gguf": 1, "README.md": 7}
    assert [(choice.quant, choice.size, choice.files) for choice in quants_in(sizes)] == [
        ("UD-Q2_K_XL", 250, tuple(R1)),
        ("Q8_0", 900, ("a-Q8_0.gguf",)),
    ]


def test_parts_that_contradict_each_other_do_not_hide_a_whole_quantization() -> None:
    sizes = {"a-Q4_0-00000-of-00002.gguf": 1, "a-Q4_0-00001-of-00002.gguf": 1, "a-Q8_0.gguf": 2}
    assert [choice.quant for choice in quants_in(sizes)] == ["Q8_0"]


@pytest.mark.parametrize(
    "name",
    [
        "../x.gguf", "/x.gguf", "a//x.gguf", "a/../x.gguf", "./x.gguf", "C:\\x.gguf", "\\\\host\\share\\x.gguf",
        "a\\x.gguf", "x\0.gguf", "x\n.gguf", "x.gguf.", "x.gguf ", "con.gguf", "AUX", "lpt1.Q8_0.gguf", "a/NUL/x.gguf",
        "x?.gguf", "x:y.gguf", "", "a" * 300, "a/" * 600 + "x",
    ],
)  # fmt: skip
def test_a_name_that_could_leave_the_folder_or_fail_on_windows_is_refused(name: str) -> None:
    with pytest.raises(VerificationFailed, match="unsafe"):
        check_file_name(name)


def test_ordinary_names_pass() -> None:
    for name in (*R1, "config.json", "1_Pooling/config.json", "console.gguf", "Modèle é.gguf"):
        check_file_name(name)


def test_a_name_that_windows_cannot_have_matters_only_where_it_is_chosen() -> None:
    assert choose_files(["a-Q8_0.gguf", "figure: 1?.png"], "Q8_0") == ("a-Q8_0.gguf",)


@given(
    st.text("abcXYZ-_.0", min_size=1, max_size=20),
    st.sampled_from(["Q4_K_M", "UD-IQ2_XXS", "BF16", "MXFP4"]),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_whatever_order_a_listing_has_the_shards_come_out_whole(
    stem: str, quant: str, count: int, shuffler: random.Random
) -> None:
    files = [f"{quant}/x{stem}-{quant}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]
    listing = [*files, "README.md"]
    shuffler.shuffle(listing)
    assert choose_files(listing, quant.lower()) == tuple(files)
    assert [choice.files for choice in quants_in(dict.fromkeys(listing, 1))] == [tuple(files)]


@given(st.lists(st.text("abQK_48M0-of.gu/\\F1 \0", max_size=30), max_size=6), st.text(max_size=12))
def test_no_listing_makes_the_choice_fail_in_another_way(names: list[str], quant: str) -> None:
    try:
        assert set(choose_files(names, quant)) <= set(names)
    except DsrError as error:
        assert error.message


@pytest.mark.parametrize(
    "name", ["Q4_K_M", "IQ4_XS", "IQ4_NL", "IQ2_M", "UD-Q2_K_XL", "MXFP4", "Q4_0", "F16", "TQ1_0", ""]
)
def test_quantizations_of_the_engine_are_not_foreign(name: str) -> None:
    assert foreign_program(name) is None


def test_every_quantization_of_ik_llama_is_foreign_by_its_name() -> None:
    inside = re.compile(r"Q8_(?:[012]_X4|K\d+|KR8)|Q8_K_R16")  # never the type of a file
    published = [name for name in ONLY_IK_LLAMA.values() if not inside.fullmatch(name)]
    assert len(published) > 40
    for name in (*published, "IQ3_KL", "M-Q4_K_R4"):
        assert foreign_program(name) == "ik_llama.cpp", name
    assert foreign_program("i2_s") == "bitnet.cpp"
    assert foreign_program("Q4_0_4_8") == "older versions of llama.cpp"


def test_quantizations_of_other_programs_are_marked_in_listings() -> None:
    with pytest.raises(NotFound) as caught:
        choose_files(["M-Q4_K_R4.gguf", "M-Q8_0.gguf"], "Q4_K")
    assert caught.value.hint == "it has: Q4_K_R4 (for ik_llama.cpp), Q8_0"
