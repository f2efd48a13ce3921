"""Which files of a listing are the weights: the same answer for a folder and for a repository."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.sources.weight_files import INDEX, index_of, is_raw_part, weight_files
from runtime.base.errors import DsrError, Incompatible, NotFound, UsageError, VerificationFailed

TWO = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
MAP = {"weight_map": {"a": TWO[0], "b": TWO[1], "c": TWO[0]}}


@pytest.mark.parametrize(
    ("listing", "index", "weights"),
    [
        ([*TWO, "consolidated.safetensors", INDEX], MAP, TWO),
        ([*TWO, "adapter_model.safetensors", "model-visual.safetensors", INDEX], MAP, TWO),
        ([*TWO, "original/model.safetensors", "consolidated-00001-of-00002.safetensors"], None, TWO),
        (["model.safetensors", "model.fp16.safetensors", "lora.safetensors"], None, ["model.safetensors"]),
        (["model.safetensors", *TWO], None, ["model.safetensors"]),
        (["model.safetensors", *TWO, INDEX], MAP, TWO),
        (["model.safetensors", INDEX], MAP, ["model.safetensors"]),  # shards joined, index forgotten
        (["model.fp16.safetensors", "model.fp32.safetensors"], None, ["model.fp16.safetensors"]),
        (["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"], None,
         ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]),
        (["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"], None,
         ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"]),
        ([*TWO, "model-00001-of-00003.safetensors"], None, TWO),
        ([*TWO, "model-00000-of-00003.safetensors"], None, TWO),
        (["w-00001-of-00001.safetensors", "v-00002-of-00001.safetensors"], None, ["w-00001-of-00001.safetensors"]),
        (["Qwen3-0.6B.safetensors", "consolidated.safetensors", "vision_tower.safetensors"], None,
         ["Qwen3-0.6B.safetensors"]),
        (["model.safetensors", "pytorch_model.bin"], None, ["model.safetensors"]),
        (["config.json", "README.md"], None, []),
    ],
)  # fmt: skip
def test_the_weights_are_chosen(listing: list[str], index: dict[str, Any] | None, weights: list[str]) -> None:
    assert list(weight_files(listing, index).names) == weights


@pytest.mark.parametrize(
    ("listing", "error", "words"),
    [
        (["adapter_model.safetensors", "adapter_config.json"], Incompatible, "an adapter (LoRA), not a model"),
        (["my-lora-r16.safetensors"], Incompatible, "an adapter (LoRA), not a model: my-lora-r16.safetensors"),
        (["consolidated.safetensors", "params.json"], Incompatible, "in Mistral's own format"),
        (["visual.safetensors"], Incompatible, "only a part for images or sound"),
        (["pytorch_model.bin"], Incompatible, "pickle files"),
        (["bf16/model.safetensors", "fp8/model.safetensors"], NotFound, "the weights are in folders: bf16, fp8"),
        (["a.safetensors", "b.safetensors"], UsageError, "there are 2 checkpoints"),
        ([TWO[1]], NotFound, "1 of 2 weight files is missing: model-00001-of-00002.safetensors"),
        (
            ["model-00001-of-99999.safetensors"],
            NotFound,
            "99998 of 99999 weight files are missing: model-00002-of-99999",
        ),
        ([TWO[0], "model-00001-of-00003.safetensors"], UsageError, "there are 2 checkpoints"),
        (["model-00000-of-00002.safetensors"], VerificationFailed, "the parts of model disagree on their number"),
        (
            ["model-00001-of-00001.fp16.safetensors", "model.fp16-00001-of-00001.safetensors"],
            UsageError,
            "there are 2 checkpoints",
        ),
    ],
)
def test_listings_without_one_whole_checkpoint_are_named(listing: list[str], error: type[DsrError], words: str) -> None:
    with pytest.raises(error) as caught:
        weight_files(listing)
    assert words in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("weight_map", "error", "words"),
    [
        ({"a": "../x.safetensors"}, VerificationFailed, "has an invalid file name for 'a'"),
        ({"a": "/x.safetensors"}, VerificationFailed, "has an invalid file name for 'a'"),
        ({"a": "sub/x.safetensors"}, VerificationFailed, "has an invalid file name for 'a'"),
        ({"a": ["x"]}, VerificationFailed, "has an invalid file name for 'a'"),
        ({"a": "x.txt"}, VerificationFailed, "which is not a safetensors file"),
        ({"a": "pytorch_model.bin"}, Incompatible, "a Python pickle"),
        ({"a": "x.safetensors"}, NotFound, "1 of 1 weight file is missing: x.safetensors"),
        ({}, VerificationFailed, "has no weight_map"),
        ([], VerificationFailed, "has no weight_map"),
    ],
)
def test_an_index_that_cannot_be_true_is_refused(weight_map: Any, error: type[DsrError], words: str) -> None:
    with pytest.raises(error) as caught:
        weight_files([*TWO, INDEX], {"weight_map": weight_map})
    assert words in caught.value.message.replace("weight files is", "weight file is")


def test_the_index_of_a_variant_counts_only_without_other_weights() -> None:
    variant = "model.safetensors.index.fp16.json"
    assert index_of(["model-00001-of-00001.fp16.safetensors", variant]) == variant
    assert index_of([*TWO, variant]) is None
    assert index_of([*TWO, variant, INDEX]) == INDEX


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("x.gguf.part1of2", True), ("q/x.gguf.part-a", True), ("x.gguf-split-b", True), ("x.gguf.001", True),
        ("x.gguf", False), ("x-00001-of-00002.gguf", False), ("x.gguf.md", False),
    ],
)  # fmt: skip
def test_raw_parts_of_a_gguf_file_are_told_by_their_names(name: str, raw: bool) -> None:
    assert is_raw_part(name) is raw


NAMES = st.sampled_from(
    [*TWO, "model.safetensors", "model.fp16.safetensors", "consolidated.safetensors", "adapter_model.safetensors",
     "adapter_config.json", "pytorch_model.bin", "visual.safetensors", "model-00001-of-00003.safetensors",
     "model-00003-of-00002.safetensors", "model-00000-of-00002.safetensors", "other.safetensors", "a/model.safetensors",
     "x.gguf", "config.json", INDEX]
)  # fmt: skip


@given(
    st.sets(NAMES | st.text("abm./\\-0of", max_size=30), max_size=8),
    st.none() | st.dictionaries(st.text(max_size=5), NAMES | st.text(max_size=9) | st.integers(), max_size=4),
)
def test_what_is_chosen_is_listed_at_the_top_and_never_twice(
    listing: set[str], weight_map: dict[str, Any] | None
) -> None:
    try:
        chosen = weight_files(listing, None if weight_map is None else {"weight_map": weight_map})
    except DsrError as error:
        assert "\n" not in error.message
        return
    assert set(chosen.names) <= {name for name in listing if "/" not in name and name.endswith(".safetensors")}
    assert len(set(chosen.names)) == len(chosen.names)
    if chosen.weight_map is None:
        assert not any(name.startswith(("consolidated", "adapter", "visual")) for name in chosen.names)
