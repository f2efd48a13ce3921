from __future__ import annotations

import re

import pytest

from dsr.models.catalog import load
from dsr.models.references import guess, parse, sizes
from dsr.models.spellings import spelled
from runtime.base.errors import NotFound


@pytest.mark.parametrize(
    ("name", "meant", "quant"),
    [
        ("llama3.2:1b", "llama-3.2:1b", None),
        ("llama3.2:3b-instruct-q4_K_M", "llama-3.2:3b", "Q4_K_M"),
        ("llama3.1", "llama-3.1:8b", None),
        ("llama3.3:70b", "llama-3.3:70b", None),
        ("llama4:scout", "llama-4-scout:109b-a17b", None),
        ("phi4", "phi-4:14b", None),
        ("phi4:14b-fp16", "phi-4:14b", "F16"),
        ("phi4-reasoning:plus", "phi-4-reasoning:14b-plus", None),
        ("phi4-mini-reasoning:3.8b", "phi-4-reasoning:4b-mini", None),
        ("gemma3:4b-it-q4_K_M", "gemma3:4b", "Q4_K_M"),
        ("gemma4:e4b-it-q8_0", "gemma4:e4b", "Q8_0"),
        ("qwen3:30b", "qwen3:30b-a3b", None),
        ("qwen3:235b", "qwen3:235b-a22b", None),
        ("qwen3:4b-instruct", "qwen3-2507:4b-instruct", None),
        ("qwen3-coder:30b", "qwen3-coder:30b-a3b", None),
        ("qwen3:30b-a3b-thinking-2507-q4_K_M", "qwen3-2507:30b-a3b", "Q4_K_M"),
        ("deepseek-r1:7b-qwen-distill-q4_K_M", "deepseek-r1:7b", "Q4_K_M"),
        ("nemotron-3-nano:30b", "nemotron-3:30b-a3b", None),
        ("mistral-small3.2:24b", "mistral-small:24b", None),
        ("granite4:tiny-h", "granite-4:7b-a1b", None),
        ("lfm2.5-thinking:1.2b", "lfm2.5:1.2b-thinking", None),
        ("olmo3:7b", "olmo-3:7b", None),
    ],
)
def test_a_name_as_ollama_spells_it_is_the_model_of_the_catalogue(name: str, meant: str, quant: str | None) -> None:
    found = parse(name)
    assert found.entry is not None
    assert (found.entry.name, found.quant, found.text) == (meant, quant, name)
    assert guess(name).kind == "model"


def test_a_name_of_another_program_without_a_size_means_all_sizes() -> None:
    for name in ("llama3.2", "llama3.2:latest"):
        assert [entry.name for entry in sizes(name)] == ["llama-3.2:1b", "llama-3.2:3b"]
    assert [entry.name for entry in sizes("granite4")] == ["granite-4:3b", "granite-4:7b-a1b", "granite-4:32b-a9b"]
    assert sizes("llama3.2:1b") == ()


@pytest.mark.parametrize(
    "other",
    [
        "qwen2.5:7b",
        "qwen:9b",
        "gemma2:9b",
        "gemma3:1b",
        "gemma3:4b-it-qat",
        "devstral:24b",
        "llama3",
        "mistral",
        "2026",
    ],
)
def test_a_model_that_the_catalogue_lacks_is_never_taken_for_another(other: str) -> None:
    assert spelled(other, load().entries).entries == ()


def test_every_model_is_found_without_the_hyphen_between_word_and_number() -> None:
    for entry in load().entries:
        base, _, tag = entry.name.partition(":")
        found = spelled(re.sub(r"(?<=[a-z])-(?=\d)", "", base) + f":{tag}", load().entries)
        assert entry in found.entries, entry.name


def test_a_missing_size_is_answered_with_the_closest_sizes_first() -> None:
    for name, first in (("qwen2.5:7b", "qwen3:8b"), ("gemma3:1b", "gemma3:4b"), ("deepseek-r1:9b", "deepseek-r1:8b")):
        with pytest.raises(NotFound) as caught:
            parse(name)
        assert caught.value.hint is not None
        assert caught.value.hint.startswith(f"did you mean {first}, ")
        assert caught.value.hint.endswith("Any other model of the hub: dsr pull org/repo")


def test_latest_behind_a_repository_is_no_quantization() -> None:
    found = parse("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:latest")
    assert (found.repo, found.quant) == ("bartowski/Llama-3.2-1B-Instruct-GGUF", None)
