"""Which models give vectors, and how their header says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.base.errors import Incompatible
from runtime.gguf.card import ModelCard
from runtime.gguf.embedding import EmbeddingForm, check_useful, embedding_form, uses
from runtime.gguf.reader import read_card
from tests.gguf_writer import T, llama_metadata, llama_tensors, write


@pytest.fixture
def card(tmp_path: Path) -> Any:
    def make(architecture: str = "llama", *more: T, **changes: Any) -> ModelCard:
        own = {key.replace("llama.", f"{architecture}.", 1): value for key, value in llama_metadata().items()}
        own |= {"general.architecture": architecture} | {
            key if key.startswith("tokenizer.") else f"{architecture}.{key}": value for key, value in changes.items()
        }
        return read_card(write(tmp_path / "model.gguf", own, [*llama_tensors(), *more]))

    return make


def test_an_encoder_embeds_and_writes_no_answers(card: Any) -> None:
    found = card("bert", **{"pooling_type": 2, "attention.causal": False})
    assert uses(found) == ("embeddings",)
    assert embedding_form(found) == EmbeddingForm("cls", True, 64, causal=False, caches=False, longest=128)


def test_a_model_that_writes_text_embeds_too(card: Any) -> None:
    assert uses(card()) == ("answers", "embeddings")


def test_without_a_stated_pooling_text_models_take_the_last_token_and_encoders_the_mean(card: Any) -> None:
    llama, bert = embedding_form(card()), embedding_form(card("bert"))
    assert (llama.pooling, llama.stated, llama.in_parts) == ("last", False, True)
    assert (bert.pooling, bert.stated, bert.in_parts) == ("mean", False, False)


def test_the_mean_of_a_text_needs_the_whole_text_in_one_batch(card: Any) -> None:
    assert not embedding_form(card("qwen3", pooling_type=1)).in_parts
    assert embedding_form(card("qwen3", pooling_type=3)).in_parts
    assert not embedding_form(card("qwen3", **{"pooling_type": 3, "attention.causal": False})).in_parts


def test_a_table_of_positions_bounds_the_length_of_a_text(card: Any) -> None:
    assert embedding_form(card("bert", T("position_embd.weight", (64, 100)))).longest == 100


def test_the_file_may_name_another_number_of_dimensions(card: Any) -> None:
    assert embedding_form(card(embedding_length_out=32)).dimensions == 32


@pytest.mark.parametrize(
    ("architecture", "changes", "said"),
    [
        ("bert", {"pooling_type": 4}, "a reranker, which gives a score for two texts and no vectors"),
        ("bert", {"pooling_type": 0}, "it gives a vector for each token, and none for a whole text"),
        ("t5", {}, "a model that translates, of which dsr cannot use the encoder alone"),
        ("dream", {}, "a diffusion model, which dsr cannot run"),
        ("eagle3", {}, "a draft model of a kind that dsr cannot use: it only guesses ahead for another model"),
        ("llama", {"tokenizer.ggml.model": "none"}, "a model without a vocabulary, which reads and writes no text"),
    ],
)
def test_other_models_give_no_vectors_and_the_error_says_why(
    card: Any, architecture: str, changes: dict[str, Any], said: str
) -> None:
    found = card(architecture, **changes)
    with pytest.raises(Incompatible) as caught:
        embedding_form(found)
    assert caught.value.message == f"{found.path}: {said}"
    assert caught.value.hint


def test_a_model_is_useful_if_it_answers_or_embeds(card: Any) -> None:
    check_useful(card())
    check_useful(card("bert"))
    with pytest.raises(Incompatible, match="an embedding model, which writes no text"):
        check_useful(card("bert", pooling_type=4))
    with pytest.raises(Incompatible, match="does not know its architecture"):
        check_useful(card("next9"))
