"""What a model knows about itself: its header, its family, a reference that finds it from everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsr.models import model as module
from dsr.models.catalog import load
from dsr.models.library import find
from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from tests.dsr.chat.chatting import a_model, card


def test_the_header_is_read_at_the_first_use_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> ModelCard:
        read.append(path)
        return read_card(path)

    monkeypatch.setattr(module, "read_card", counted)
    nano = find("nano")
    assert read == []
    assert nano.card.name == nano.card.name
    assert read == [nano.path]


def test_another_file_has_another_header(tmp_path: Path) -> None:
    nano = replace(find("nano"), digests=("0" * 64,))
    other = tmp_path / "other.gguf"
    other.write_bytes(nano.path.read_bytes())
    assert nano.card.path == nano.path
    moved = nano.with_file(other)
    assert (moved.path, moved.files, moved.size, moved.digests) == (other, (other,), nano.size, ())
    assert moved.card.path == other


def test_a_given_header_is_not_read() -> None:
    known = a_model().with_card(card("DeepSeek R1"))
    assert known.card.name == "DeepSeek R1"
    assert known == a_model()


def test_the_family_is_the_catalogues_or_the_files_own_name() -> None:
    entry = next(entry for entry in load().entries if entry.name == "qwq:32b")
    assert replace(a_model(), entry=entry).with_card(card("DeepSeek R1")).family == entry.family
    assert a_model().with_card(card("DeepSeek R1")).family == "deepseek-r1"
    assert a_model().with_card(card("SmolLM2")).family == ""


def test_a_file_is_found_again_from_any_folder() -> None:
    file = replace(a_model("fake.gguf"), repo=None)
    assert file.absolute_reference == str(file.path.absolute())
    assert a_model().absolute_reference == "fake:1b"
    assert find("nano").absolute_reference == "nano"


def test_the_short_name_is_the_vendors() -> None:
    entry = next(entry for entry in load().entries if entry.name == "qwq:32b")
    assert find("nano").short_name == "nano"
    assert replace(a_model(), entry=entry).short_name == "QwQ-32B"
    assert a_model().short_name == "fake:1b"


def test_a_given_template_replaces_the_files_own() -> None:
    hello = [Message("user", "hello")]
    nano = find("nano")
    assert nano.chat_format().prompt(hello).begins_with_bos
    assert nano.chat_format().markers == nano.markers()
    assert nano.chat_format("{{ messages[0].content }}").prompt(hello).text == "hello"
    with pytest.raises(Incompatible, match="Fake has no chat template"):
        a_model().with_card(replace(card(), template=None)).chat_format()
