"""From a model to an open embedder: what is checked first."""

from __future__ import annotations

from pathlib import Path

import pytest

import dsr.loading.embedder
import runtime.llama
from dsr.loading.embedder import load_embedder
from dsr.loading.tried_files import try_embedder_once
from dsr.models import library
from dsr.models.model import Model
from runtime.base.errors import DoesNotFit, EngineFailed, Incompatible
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.placement.trial import try_embedder
from tests.dsr.loading.loading import ONE_THREAD, file_model, host, never
from tests.embedding_gguf import write_embedder


@pytest.fixture
def bert(tmp_path: Path) -> Model:
    return file_model(write_embedder("bert", tmp_path / "bert.gguf"))


def test_an_encoder_opens_and_embeds(bert: Model) -> None:
    with load_embedder(bert, None, ONE_THREAD) as loaded:
        assert loaded.threads == 1
        assert loaded.form.dimensions == loaded.embedder.dimensions == 64
        assert loaded.embedder.longest == 600
        [vector] = loaded.embedder.embed([loaded.embedder.tokenize("the cat")])
        assert len(vector) == 64


def test_a_model_that_chats_opens_too() -> None:
    with load_embedder(library.find("nano"), 256, ONE_THREAD) as loaded:
        assert (loaded.form.pooling, loaded.form.stated) == ("last", False)
        assert loaded.embedder.longest == 256
        assert len(loaded.embedder.embed([loaded.embedder.tokenize("2 + 2")], 16)[0]) == 16


@pytest.mark.parametrize("available", [10 << 20, 0])
def test_what_does_not_fit_is_not_even_tried(bert: Model, monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    monkeypatch.setattr(dsr.loading.embedder, "probe", lambda: host(available))
    monkeypatch.setattr("dsr.loading.tried_files.try_embedder", never)
    monkeypatch.setattr(runtime.llama, "Embedder", never)
    with pytest.raises(DoesNotFit), load_embedder(bert, None, ONE_THREAD):
        pass


def test_a_reranker_is_refused_before_it_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = file_model(write_embedder("reranker", tmp_path / "reranker.gguf"))
    monkeypatch.setattr("dsr.loading.tried_files.try_embedder", never)
    with pytest.raises(Incompatible, match="a reranker"), load_embedder(model, None, ONE_THREAD):
        pass


def test_a_file_is_tried_once(bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []
    monkeypatch.setattr("dsr.loading.tried_files.try_embedder", lambda card, run: tried.append(card.path))
    try_embedder_once(bert, Run())
    try_embedder_once(bert, Run())
    try_embedder_once(library.find("nano"), Run())
    assert tried == [bert.path]


def test_a_file_that_crashes_the_engine_does_not_crash_dsr(tmp_path: Path) -> None:
    """No layer of this one sees the whole text, which the engine does not expect."""
    path = write_embedder("gemma-embedding", tmp_path / "gemma.gguf")
    try_embedder(read_card(path), ONE_THREAD)
    short = write_embedder("gemma-embedding", tmp_path / "short.gguf", layers=2)
    with pytest.raises(EngineFailed, match=r"it crashes the engine \(SIGABRT\)"):
        try_embedder(read_card(short), ONE_THREAD)


def test_weights_that_give_no_numbers_are_refused(tmp_path: Path) -> None:
    path = write_embedder("bert", tmp_path / "nan.gguf", fill=float("nan"))
    with pytest.raises(EngineFailed, match="its weights give no vector of finite numbers"):
        try_embedder(read_card(path), ONE_THREAD)
