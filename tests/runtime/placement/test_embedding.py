"""How a model is opened for embeddings: lengths, batches, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from runtime.base.errors import DoesNotFit, Incompatible
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from runtime.placement.embedding import plan_embedding
from tests.embedding_gguf import write_embedder

PLENTY = 1 << 40
MIB = 1 << 20


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelCard]:
    folder = tmp_path_factory.mktemp("models")
    return lambda kind: read_card(write_embedder(kind, folder / f"{kind}.gguf"))


def test_a_text_that_must_lie_in_one_batch_gets_a_batch_of_its_length(card: Callable[[str], ModelCard]) -> None:
    options = plan_embedding(card("bert-mean"), PLENTY).options
    assert (options.pooling, options.in_parts, options.longest) == ("mean", False, 600)
    assert options.room == 608  # a multiple of the 32 sequences
    assert options.together == 512


def test_a_text_that_can_be_cut_needs_no_larger_batch(card: Callable[[str], ModelCard]) -> None:
    options = plan_embedding(card("qwen3"), PLENTY).options
    assert (options.pooling, options.in_parts, options.longest, options.room) == ("last", True, 600, 512)


def test_a_recurrent_model_computes_one_text_at_a_time(card: Callable[[str], ModelCard]) -> None:
    qwen = card("qwen3-unsaid")
    mamba = replace(
        qwen,
        tensors=(*qwen.tensors, replace(qwen.tensors[0], name="blk.0.ssm_conv1d.weight")),
        metadata={**qwen.metadata, "qwen3.ssm.inner_size": 64, "qwen3.ssm.state_size": 16, "qwen3.ssm.conv_kernel": 4},
    )
    assert plan_embedding(mamba, PLENTY).options.sequences == 1


def test_a_large_vocabulary_makes_smaller_batches_because_each_token_has_a_row_of_logits(
    card: Callable[[str], ModelCard],
) -> None:
    gemma = replace(card("gemma3"), vocab_size=262_144)
    assert plan_embedding(gemma, PLENTY).options.together == 128


def test_the_longest_text_is_the_users_or_as_long_as_memory_allows(card: Callable[[str], ModelCard]) -> None:
    nomic = replace(card("nomic-bert"), context_length=32_768)
    assert plan_embedding(nomic, PLENTY).options.longest == 8192
    assert plan_embedding(nomic, PLENTY, 20_000).options.longest == 20_000
    assert plan_embedding(nomic, 200 * MIB).options.longest == 4096
    assert plan_embedding(nomic, 200 * MIB).need.beyond_weights <= 200 * MIB


def test_what_does_not_fit_is_refused_with_both_numbers(card: Callable[[str], ModelCard]) -> None:
    bert = card("bert")
    with pytest.raises(DoesNotFit, match=r"to embed texts of 512 tokens bert needs 66\.\d MiB in addition"):
        plan_embedding(bert, 10 * MIB)
    with pytest.raises(DoesNotFit, match="bert embeds texts of at most 600 tokens, not 700") as caught:
        plan_embedding(bert, PLENTY, 700)
    assert caught.value.hint == "--ctx-size 600"
    with pytest.raises(DoesNotFit):
        plan_embedding(bert, 10 * MIB, 600)


def test_a_reranker_is_refused(card: Callable[[str], ModelCard]) -> None:
    with pytest.raises(Incompatible, match="a reranker"):
        plan_embedding(card("reranker"), PLENTY)
