"""A model file is tried in a child once, and again where its trial failed or the engine changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import runtime.llama
import runtime.llama.trial
from dsr.models import library
from runtime.base.errors import BadModelFile
from tests.dsr.loading.loading import file_model, load_and_close, never
from tests.gguf_writer import llama_metadata, write


def test_a_file_is_tried_once_for_its_header(tmp_path: Path, trials: list[Path]) -> None:
    first, other = (
        write(tmp_path / "first.gguf"),
        write(tmp_path / "other.gguf", llama_metadata(**{"general.name": "O"})),
    )
    copy = Path(shutil.copy(first, tmp_path / "copy.gguf"))
    for path in (first, first, copy, other, other):
        load_and_close(file_model(path), threads=1)
    assert trials == [first, other]


def test_a_file_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tried = write(tmp_path / "bad.gguf"), []

    def fail(path: Path) -> None:
        tried.append(path)
        raise BadModelFile(path, "opening it crashes the engine (SIGSEGV)")

    monkeypatch.setattr(runtime.llama.trial, "try_in_child", fail)
    monkeypatch.setattr(runtime.llama, "LlamaBackend", never)
    for _ in range(2):
        with pytest.raises(BadModelFile):
            load_and_close(file_model(path), threads=1)
    assert tried == [path, path]


def test_another_engine_tries_again(tmp_path: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tiny.gguf")
    load_and_close(file_model(path), threads=1)
    monkeypatch.setattr("dsr.loading.trial.version", lambda package: "0.3.37")
    load_and_close(file_model(path), threads=1)
    assert trials == [path, path]


def test_the_embedded_model_is_not_tried(trials: list[Path]) -> None:
    load_and_close(library.find("nano"), threads=1)
    assert trials == []
