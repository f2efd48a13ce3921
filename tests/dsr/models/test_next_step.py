"""The command to type next: one that works for the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsr.models import next_step
from dsr.models.library import find
from dsr.models.next_step import next_command
from runtime.base.types import ByteCount
from tests.embedding_gguf import write_embedder
from tests.gguf_writer import llama_metadata
from tests.quant import models
from tests.quant.models import model


def without_template(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in llama_metadata(**changes).items() if key != "tokenizer.chat_template"}


def test_a_model_that_chats_is_for_chat(nano_path: Path) -> None:
    assert next_command(find(str(nano_path))) == f"dsr chat {nano_path}"
    assert next_command(find("nano"), "nano") == "dsr chat nano"


def test_names_are_fit_for_a_shell() -> None:
    assert next_command(find("nano"), "a b.gguf") == "dsr chat 'a b.gguf'"
    assert next_command(find("nano"), "-x.gguf") == "dsr chat ./-x.gguf"


def test_a_model_of_embeddings_is_for_serve(tmp_path: Path) -> None:
    write_embedder("bert", tmp_path / "bert.gguf")
    assert next_command(find(str(tmp_path / "bert.gguf"))) == f"dsr serve {tmp_path / 'bert.gguf'}"


def test_a_model_without_a_template_is_for_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "llama_metadata", without_template)
    assert next_command(find(str(model(tmp_path / "base.gguf")))) == f"dsr serve {tmp_path / 'base.gguf'}"


def test_a_model_that_is_larger_than_memory_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    host = next_step.probe(Path())
    monkeypatch.setattr(next_step, "probe", lambda _: replace(host, memory_available=ByteCount(1 << 20)))
    assert next_command(find("nano")) == "dsr plan nano"
