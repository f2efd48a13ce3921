"""Predicted weights and caches are those of the engine, to the byte. tests/peers/breakdown.py compares every one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.gguf.card import layer_count
from runtime.gguf.reader import read_card
from runtime.llama import OpenOptions
from runtime.llama.memory_breakdown import breakdown
from runtime.placement.cache import CacheOptions, cache_bytes
from runtime.placement.cache_shape import cache_shape
from runtime.placement.compared import COMPARED, estimate_note
from runtime.placement.memory import part_sizes
from tests.every_architecture import ARCHITECTURES, VARIANTS, counted_besides, write_model

_PADDING = 32  # bytes around a tensor


def test_the_formulas_know_what_was_compared() -> None:
    assert set(ARCHITECTURES) == COMPARED


def test_what_is_only_estimated_is_said(tmp_path: Path) -> None:
    card = read_card(write_model("grok", tmp_path / "hollow.gguf"))
    said = estimate_note(card)
    assert said is not None and "the working buffers of grok are estimated roughly" in said
    said = estimate_note(replace(card, architecture="plm"))
    assert said is not None and said.startswith(
        "dsr's formulas were not compared with the engine for plm: the cache is"
    )
    assert estimate_note(replace(card, architecture="llama")) is None
    said = estimate_note(replace(card, architecture="sketch", metadata={}))
    assert said is not None and said.startswith("the cache is estimated as that of full attention in each layer")


# One model for each kind of memory.
KINDS = [
    "llama",
    "deepseek2",  # latent attention
    "gemma4",  # windows with narrower heads, layers that share a cache, a table for each layer's input
    "gemma3n",  # layers that share a cache
    "gemma3n that says what it shares",
    "gemma3n with tied embeddings",  # their table has two tensors
    "gemma4 with tied embeddings",
    "openelm",  # heads that differ by layer
    "mamba2",
    "falcon-h1",  # state and attention in each layer
    "nemotron_h",  # layers that cache nothing
    "lfm2 with windows",
    "kimi-linear",
    "minimax-01",  # lightning attention
    "glm-dsa",  # an indexer in some layers
    "dots3note",  # latent attention in windows, and indexers
    "minimax-m3",  # an indexer with values
    "qwen4exp",  # gated delta net, indexer, n-gram embeddings
    "glm5-next with MTP",
    "hy_v3 with MTP",  # its MTP layer is mapped, and has no cache in the main context
    "bailingmoe3 with MTP",  # its MTP layer has a cache in the main context
    "deepseek4",  # compressed rows
    "nanbeige in two passes",
]

# Models as wide as published ones
PUBLISHED = ("qwen35 of 9B", "qwen35 of 0.8B", "gpt-oss of 20B", "gemma4 of E4B", "gemma3 of 4B", "qwen3moe of 30B")
# Kinds whose working buffers are known as well.
WITHIN_3_PERCENT = (
    *PUBLISHED,
    "llama",
    "deepseek2",
    "gemma4",
    "gemma3n",
    "mamba2",
    "falcon-h1",
    "minimax-m3",
    "nanbeige in two passes",
)


@pytest.mark.parametrize("kind", [*KINDS, *PUBLISHED])
def test_weights_and_caches_are_those_of_the_engine(kind: str, tmp_path: Path) -> None:
    architecture, changes = VARIANTS.get(kind, (kind, {}))
    path = write_model(architecture, tmp_path / "hollow.gguf", **changes)
    card = read_card(path)
    every = range(layer_count(card))
    for context, slots, kv_type in ((4096, 1, "f16"), (5000, 4, "q8_0")):
        its = breakdown(path, OpenOptions(context=context, slots=slots, kv_type=kv_type))
        assert its is not None
        caches = cache_bytes(cache_shape(card), CacheOptions(context, slots, kv_type))
        assert sum(caches) == sum(use.kv_cache for use in its)
        sizes = part_sizes(card, context, slots, kv_type)
        if kind in WITHIN_3_PERCENT:
            whole = sizes.need(every, every, head=True, local=True)
            buffers = whole.compute - sizes.sampling_buffer - sizes.program
            assert buffers == pytest.approx(sum(use.compute for use in its), rel=0.03)
        weights = sizes.need(every, every, head=True, local=True).weights
        assert 0 <= sum(use.weights for use in its) - counted_besides(card) - weights <= _PADDING * len(card.tensors)
