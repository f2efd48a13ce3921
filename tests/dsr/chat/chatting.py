"""Conversations with the fake backend: a model that says what a test wants, in a terminal that a test can read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from dsr.chat.conversation import Conversation
from dsr.loading.load import LoadedModel
from dsr.models.model import ChatFormat, Model
from runtime.base.types import ByteCount, Message, SamplingParams
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template import ChatTemplate
from runtime.gguf.card import ModelCard
from tests.fakes import FakeBackend, Speaker, saying

TAGS = ThinkingMarkers("<think>", "</think>")
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
SWITCHED = PLAIN + "{% if enable_thinking is defined and not enable_thinking %} briefly:{% endif %}"

# Like gpt-oss: three levels; and like Qwen3.6, earlier thoughts on request.
LEVELLED = (
    "{% if reasoning_effort is defined and reasoning_effort not in ['low', 'medium', 'high'] %}"
    "{{ raise_exception('no such effort') }}{% endif %}effort {{ reasoning_effort|default('medium') }}\n"
    "{% for m in messages %}{{ m.role }}: "
    "{% if preserve_thinking and m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}\n{% endfor %}assistant:"
)


def card(name: str = "Fake", metadata: Mapping[str, Any] | None = None) -> ModelCard:
    given = {"files", "size", "architecture", "name", "metadata", "tensors", "header_digest", "context_length"}
    given |= {"kv_heads_per_layer", "bos_token", "eos_token", "template"}
    zeros = {field.name: 0 for field in fields(ModelCard) if field.init and field.name not in given}
    return ModelCard(
        files=(Path("fake.gguf"),),
        size=ByteCount(0),
        architecture="fake",
        name=name,
        metadata=metadata or {},
        tensors=(),
        header_digest="0" * 64,
        context_length=1000,
        kv_heads_per_layer=(),
        bos_token=None,
        eos_token=None,
        template=PLAIN,
        **zeros,
    )


def a_model(name: str = "fake:1b") -> Model:
    return Model(Path("fake.gguf"), (Path("fake.gguf"),), name, name, ByteCount(0), repo="some/repo")


def with_card(model: Model, card: ModelCard) -> Model:
    """The model with a header that no file has."""
    known = replace(model)
    known._card.append(card)
    return known


def open_model(
    *replies: str,
    markers: ThinkingMarkers | None = TAGS,
    template: str = PLAIN,
    context: int = 1000,
    slots: int = 1,
    **parts: Any,
) -> LoadedModel:
    """A model that answers `replies[seed % len]`."""
    speaker = saying(*replies, after="assistant:")
    backend = FakeBackend(speaker, context=context, slots=slots, reach=parts.get("reach"))
    found = with_card(parts.get("model", a_model()), parts.get("card", card()))
    return LoadedModel(
        model=found,
        backend=backend,
        chat_format=ChatFormat(
            ChatTemplate(template, bos="", eos=""), markers, found.family, f"the chat template of {found.reference}"
        ),
        threads=2,
        load_seconds=0.25,
        state_identity=parts.get("state_identity", ""),
    )


def conversation(*replies: str, seed: int = 0, turns: tuple[Message, ...] = (), **fields: Any) -> Conversation:
    return Conversation(loaded=open_model(*replies, **fields), params=SamplingParams(seed=seed), turns=list(turns))


def backend_of(conversation: Conversation) -> FakeBackend:
    backend = conversation.loaded.backend
    assert isinstance(backend, FakeBackend)
    return backend


def stop_after(conversation: Conversation, tokens: int) -> None:
    """Press Ctrl-C, so to speak, when the next reply has so many tokens."""
    backend = backend_of(conversation)
    speak, drawn = backend._speak, 0

    def counting(held: list[int], seed: int) -> int:
        nonlocal drawn
        drawn += 1
        if drawn == tokens:
            backend.stop.set()
        return speak(held, seed)

    replace_speaker(conversation, counting if tokens else speak)
    if not tokens:
        backend.stop.set()


def replace_speaker(conversation: Conversation, speaker: Speaker) -> None:
    backend_of(conversation)._speak = speaker


class Screen(io.StringIO):
    """A terminal of 20 columns, or with `tty` False a pipe."""

    def __init__(self, tty: bool = True) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


def screens(monkeypatch: pytest.MonkeyPatch, *, out: bool, err: bool, columns: int = 20) -> tuple[Screen, Screen]:
    """Stand-ins for stdout and stderr, each a terminal or not."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    pair = Screen(out), Screen(err)
    monkeypatch.setattr("sys.stdout", pair[0])
    monkeypatch.setattr("sys.stderr", pair[1])
    return pair
