"""Headers estimated from the catalogue weigh what published files weigh."""

from __future__ import annotations

from typing import Any

import pytest

from dsr.models.catalog import load
from dsr.plan.estimate import estimated_card, mixtures
from runtime.gguf.card import parts
from runtime.placement.cache import CacheOptions, cache_bytes
from runtime.placement.cache_shape import cache_shape
from runtime.placement.compared import estimate_note
from runtime.placement.memory import need


@pytest.mark.parametrize("entry", load().entries, ids=lambda entry: entry.name)
def test_an_estimate_has_the_weights_that_the_catalogue_tells(entry: Any) -> None:
    for quant in mixtures(entry):
        card = estimated_card(entry, quant)
        weights = (entry.shape and entry.shape.weights) or entry.parameters
        assert card.parameters == pytest.approx(weights, rel=0.03)
        # Half of what a token meets is guessed to be routed; DeepSeek V2 Lite is off most.
        looked_up = sum(tensor.parameters for tensor in card.tensors if tensor.name.startswith("per_layer_token_embd"))
        assert card.active_parameters - looked_up == pytest.approx(entry.active_parameters, rel=0.25)
        assert need(card, 8192).total > card.weights_size


def test_an_estimate_weighs_about_what_published_files_do() -> None:
    """Qwen3-8B-Q4_K_M.gguf has 5.03 GB, gpt-oss-20b-mxfp4.gguf 12.1 GB, DeepSeek-R1-Q4_K_M 404 GB (their pages)."""
    sizes = {("qwen3:8b", "Q4_K_M"): 5.03e9, ("gpt-oss:20b", "MXFP4"): 12.1e9, ("deepseek-r1:671b", "Q4_K_M"): 404e9}
    for (name, quant), size in sizes.items():
        entry = next(e for e in load().entries if e.name == name)
        assert estimated_card(entry, quant).weights_size == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(
    ("name", "quant", "mebibytes"),
    [
        # 3 of 15 layers keep 32768 tokens of 2 * 512 numbers, the others 2 windows of 512 tokens and a batch
        ("gemma4:e2b", "Q4_K_M", 3 * 64 + 12 * 1.5),
        ("qwen3.5:9b", "Q4_K_M", 8 * 128 + 24 * 2 * 2.09375),  # states of 2 sequences, 548,864 numbers in float32
        ("gpt-oss:20b", "MXFP4", 12 * 64 + 12 * 1.5),  # 2 windows of 128 tokens and a batch
        ("deepseek-r1:7b", "Q4_K_M", 28 * 64),  # 4 heads of 128 in each layer
        ("glm-4.7-flash:30b-a3b", "Q4_K_M", 47 * 36),  # 576 numbers of latent attention
        ("qwen3:8b", "Q4_K_M", 36 * 128),  # nothing said: 8 heads of 128 in each layer
    ],
)
def test_an_estimate_has_the_cache_of_the_layers_that_the_catalogue_describes(
    name: str, quant: str, mebibytes: float
) -> None:
    entry = next(e for e in load().entries if e.name == name)
    found = sum(cache_bytes(cache_shape(estimated_card(entry, quant)), CacheOptions(32768)))
    assert found == pytest.approx(mebibytes * 2**20, rel=1e-6)


def test_a_table_of_embeddings_for_each_layer_is_looked_up_and_not_counted_as_experts() -> None:
    entry = next(e for e in load().entries if e.name == "gemma4:e2b")
    card = estimated_card(entry, "Q4_K_M")
    found = parts(card)
    assert (card.experts, found.tied) == (0, True)
    assert found.tables.always == {"Q6_K": 262144 * 256 * 35 * 210 // 256}
    assert all(not layer.routed for layer in found.layers)


def test_an_estimate_says_what_the_catalogue_does_not_know() -> None:
    notes = {}
    for entry in load().entries:
        if entry.name in ("gemma4:e2b", "qwen3:8b"):
            notes[entry.name] = estimate_note(estimated_card(entry, "Q4_K_M"))
    assert str(notes["gemma4:e2b"]).startswith("the catalogue says which layers cache how much")
    assert str(notes["qwen3:8b"]).startswith("the cache is estimated as that of full attention in each layer")


# What can I run?
